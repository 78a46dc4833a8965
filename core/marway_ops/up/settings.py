"""Settings of `marway up`, and of the parts that it starts: checked before it does, with those that it decides itself.

`MARWAY_UP_*`, or the table `[up]` of a file, which config/up.toml shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from marway.errors import InvalidSettings
from marway.settings import PODS, ComponentSettings, load_settings, read_pods, read_settings, variable_of
from marway_ops.shell.environment import settings_class
from marway_ops.up.plan import named_engines

__all__ = ["UpSettings", "check_parts", "overruled"]

_DECIDED: Final[Mapping[str, Mapping[str, str]]] = {
    "gateway": {
        **dict.fromkeys(("port", "admin_port", "grpc_port"), "say port for `marway up` itself"),
        **dict.fromkeys(("host", "grpc_host"), "all of it listens on 127.0.0.1"),
        **dict.fromkeys(("drain_timeout_s", "lame_duck_s"), "everything ends within 20 s"),
        "tables": "say home for `marway up` itself",
        "pods": "say how many pods for `marway up` itself",
        **{name: f"say {name} for `marway up` itself" for name in ("observations", "registry")},
    },
    "sidecar": {
        **dict.fromkeys(("host", "port", "name"), "each pod has its own"),
        **dict.fromkeys(("runtime_dir", "archive_store"), "say home for `marway up` itself"),
        **dict.fromkeys(("drain_timeout_s", "lame_duck_s"), "everything ends within 20 s"),
        "registry": "say registry for `marway up` itself",
        "backend": "say engine for `marway up` itself",
    },
    "runtime": {
        "engine": "say engine for `marway up` itself",
        **dict.fromkeys(("runtime_dir", "model_store"), "say home for `marway up` itself"),
        "stop_timeout_s": "everything ends within 20 s",
    },
}
"""Settings that `marway up` gives each part on its command line or in its environment, and what to do about it."""

_OF_THE_HOME: Final = {
    "runtime": {"class_archives": "it is in the home; MARWAY_RUNTIME_CLASS_ARCHIVES says another place"}
}
"""Settings that it decides unless a variable does."""


class UpSettings(ComponentSettings):
    """All that can be set about `marway up`; the parts that it starts have settings of their own."""

    model_config = SettingsConfigDict(env_prefix="MARWAY_UP_")

    home: Path = Path(".marway")
    """Directory that everything is kept in. Below the current one, so that each project has its own."""
    port: int = Field(8000, ge=0, le=65533)
    """The gateway's port; the admin port is the next, gRPC the one after. 0 takes free ones. 8000 as the gateway's."""
    pods: int = Field(1, ge=1, le=64)
    """How many pods. One: each takes a Java process and, for each version that it has loaded, workers."""
    engine: str = "torchserve"
    """What serves models in the pods: `torchserve`, `native`, which needs no Java, or another backend, whose server is
    not Marway's to start. Several with commas between them are given to the pods in turn. TorchServe, because handlers
    were written for it."""
    servers: dict[str, str] = Field(default_factory=dict)
    """By pod, such as `pod-0`, the command that starts its model server, where Marway's runtime does not: it is kept up
    beside the pod's sidecar, and stopped after it. None: such servers run already."""
    registry: str | None = None
    """URL of the registry; `MARWAY_REGISTRY` serves as well. Unset, the one in the home."""
    observations: str | None = None
    """URL of the store that has observations of predictions and feedback; `MARWAY_OBSERVATIONS` serves as well. Unset,
    the registry's."""
    create_registry: bool = False
    """Whether `registry` is made where there is none. No: an empty place may be a volume that is not mounted."""
    demo: bool = False
    """Whether the examples are trained and published, once, and a first prediction is made. No: it takes a minute."""

    @property
    def engines(self) -> tuple[str, ...]:
        """The engine of each pod.

        Raises:
            InvalidSettings: There is none of such a name, or there are more than pods.
        """
        named = named_engines(self.engine)
        if len(named) > self.pods:
            raise InvalidSettings(f"engine names {len(named)} engines for {self.pods} pods: say --pods {len(named)}")
        return tuple(named[number % len(named)] for number in range(self.pods))


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
            tables = {part: read_settings(config, part)}
            if part == "sidecar":
                tables |= {f"{PODS}.{pod}": values for pod, values in read_pods(config).items()}
            for table, values in tables.items():
                for name in values:
                    if why := decided.get(name) or _OF_THE_HOME.get(part, {}).get(name):
                        raise InvalidSettings(f"{config}: [{table}] sets {name}, which `marway up` decides: {why}")
    for variable, why in overruled(environment, _DECIDED):
        yield f"the variable {variable} has no effect on `marway up`: {why}"


def overruled(environment: Mapping[str, str], parts: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that whoever starts these parts here decides in its place, and what to do about it."""
    for part in parts:
        for name, why in _DECIDED[part].items():
            if environment.get(variable_of(part, name)):
                yield variable_of(part, name), why
