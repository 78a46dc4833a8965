"""The settings of the parts that `marway up` starts: checked before it does, and those that it decides itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from marway.cli.environment import settings_class
from marway.errors import InvalidSettings
from marway.settings import load_settings, read_settings, variable_of

__all__ = ["check_parts"]

_DECIDED: Final[Mapping[str, Mapping[str, str]]] = {
    "gateway": {
        **dict.fromkeys(("port", "admin_port", "grpc_port"), "say port for `marway up` itself"),
        **dict.fromkeys(("host", "grpc_host"), "all of it listens on 127.0.0.1"),
        **dict.fromkeys(("drain_timeout_s", "lame_duck_s"), "everything ends within 20 s"),
        "pods": "say how many pods for `marway up` itself",
        "registry": "say registry for `marway up` itself",
    },
    "sidecar": {
        **dict.fromkeys(("host", "port", "name"), "each pod has its own"),
        **dict.fromkeys(("runtime_dir", "archive_store"), "say home for `marway up` itself"),
        **dict.fromkeys(("drain_timeout_s", "lame_duck_s"), "everything ends within 20 s"),
        "registry": "say registry for `marway up` itself",
    },
    "runtime": {
        **dict.fromkeys(("runtime_dir", "model_store"), "say home for `marway up` itself"),
        "stop_timeout_s": "everything ends within 20 s",
    },
}
"""Settings that `marway up` gives each part on its command line or in its environment, and what to do about it."""

_OF_THE_HOME: Final = {
    "runtime": {"class_archives": "it is in the home; MARWAY_RUNTIME_CLASS_ARCHIVES says another place"}
}
"""Settings that it decides unless a variable does."""


def check_parts(config: Path | None, environment: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each variable that has no effect here, after a check of the parts' tables in a file.

    Raises:
        InvalidSettings: A table cannot be used, or sets what `marway up` decides.
    """
    if config is not None:
        for part, decided in _DECIDED.items():
            kind = settings_class(part)
            if kind is None:
                continue  # and then `marway up` says what is not installed
            load_settings(kind, config=config)
            for name in read_settings(config, part):
                if why := decided.get(name) or _OF_THE_HOME.get(part, {}).get(name):
                    raise InvalidSettings(f"{config}: [{part}] sets {name}, which `marway up` decides: {why}")
    for part, decided in _DECIDED.items():
        for name, why in decided.items():
            if environment.get(variable_of(part, name)):
                yield f"the variable {variable_of(part, name)} has no effect on `marway up`: {why}"
