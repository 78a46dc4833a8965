"""Settings of the components: flags win over environment, environment over the TOML file, the file over defaults."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from marway.errors import InvalidSettings, clip
from marway.text import did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = [
    "OBSERVATIONS_ENV",
    "PARTS",
    "PODS",
    "REGISTRY_ENV",
    "ComponentSettings",
    "load_settings",
    "part_of",
    "read_pods",
    "read_settings",
    "variable_of",
]

REGISTRY_ENV = "MARWAY_REGISTRY"
"""One variable for all components; a component's own `MARWAY_<COMPONENT>_REGISTRY` wins over it."""

OBSERVATIONS_ENV = "MARWAY_OBSERVATIONS"
"""URL of the store that has observations and feedback, for all components; without it they are in the registry's."""
_SHARED: Final = {"registry": REGISTRY_ENV, "observations": OBSERVATIONS_ENV}
"""Settings that one variable has for all components that have them."""

UP: Final = "up"
PARTS: Final = ("gateway", "runtime", "sidecar", UP)
"""What has settings: one file has those of all in a table for each, or those of one without a table."""
PODS: Final = "pods"
"""Beside the tables of parts, one for each pod, by its name, that has settings of its own: `[pods.pod-1]`."""
_OF_A_POD: Final = "sidecar"
_LINK: Final = re.compile(r"(tcp|udp|sctp)://")

T = TypeVar("T", bound="ComponentSettings")


class ComponentSettings(BaseSettings):
    """Base of the settings classes: frozen, and unknown names are mistakes."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, env_ignore_empty=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put the sources in their order; the file comes in through the initial values (`load_settings`)."""
        given: dict[str, dict[str, Any]] = init_settings()
        named = {name: os.environ.get(each) for name, each in _SHARED.items() if name in settings_cls.model_fields}
        shared_values = {name: value for name, value in named.items() if value}
        file, flags, shared = (
            InitSettingsSource(settings_cls, values)
            for values in (given.get("file", {}), given.get("flags", {}), shared_values)
        )
        return flags, env_settings, shared, file


def load_settings(kind: type[T], *, config: Path | None = None, **flags: object) -> T:
    """Return the settings of a component.

    Args:
        kind: Its settings class.
        config: A TOML file of settings, or None.
        flags: What the command line gave; None means not given.

    Raises:
        InvalidSettings: A file that cannot be read, an unknown name or a bad value; the message says which.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    file = _of_file(config, kind, given) if config is not None else {}
    try:
        return kind(file=file, flags=given)  # type: ignore[call-arg]
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        where = f"{config}: " if config is not None and name in file and name not in given else ""
        known = kind.model_fields
        if name not in known:
            more = f"; known settings: {', '.join(known)}{did_you_mean(clip(name, 60), known)}"
        elif _LINK.match(os.environ.get(variable_of(kind, name), "")):
            more = (
                "; Kubernetes sets it so for a Service of that name: give the pod enableServiceLinks: false, as the "
                "manifests in deploy/kubernetes do"
            )
        else:
            more = ""
        raise InvalidSettings(
            f"{where}setting {clip(name, 60)!r} ({variable_of(kind, name)}): {clip(first['msg'], 200)}{more}"
        ) from exc


def _of_file(config: Path, kind: type[ComponentSettings], flags: Mapping[str, object]) -> dict[str, Any]:
    """Return what a file has for a component: for the sidecar of a pod also what is that pod's alone, which wins."""
    found = read_settings(config, part_of(kind))
    if part_of(kind) != _OF_A_POD:
        return found
    name = flags.get("name") or os.environ.get(variable_of(kind, "name")) or found.get("name")
    return {**found, **read_pods(config).get(str(name), {})}


def part_of(kind: type[ComponentSettings]) -> str:
    """Return which of `PARTS` a settings class is of."""
    return kind.model_config.get("env_prefix", "").removeprefix("MARWAY_").rstrip("_").lower()


def variable_of(part: str | type[ComponentSettings], setting: str) -> str:
    """Return the environment variable of a part's setting."""
    return f"MARWAY_{part if isinstance(part, str) else part_of(part)}_{setting}".upper()


def read_settings(path: Path, part: str) -> dict[str, Any]:
    """Return the settings that a file has for a part, unchecked.

    Raises:
        InvalidSettings: It cannot be read, or has something outside of its tables.
    """
    document = _read_toml(path)
    tables = _tables(document)
    if not tables and part != UP:
        return document
    if not tables and document:
        raise InvalidSettings(
            f"{path} has no tables: for `marway up` write its own settings under [up], and those of the parts under "
            "[gateway], [sidecar] and [runtime]"
        )
    for name in document:
        if name not in tables:
            raise InvalidSettings(
                f"{path}: {clip(name, 60)!r} is in no part's table: a file with [{tables[0]}] has all settings in "
                f"tables, of {', '.join(PARTS)}{did_you_mean(clip(name, 60), PARTS)}"
            )
        if not isinstance(document[name], dict):
            raise InvalidSettings(f"{path}: {name} is not a table: write [{name}] above its settings")
    found: dict[str, Any] = document.get(part, {})
    return found


def read_pods(path: Path) -> dict[str, dict[str, Any]]:
    """Return the settings that a file has for single pods' sidecars, by the pods' names, unchecked.

    Raises:
        InvalidSettings: It cannot be read, or one of them is no table.
    """
    document = _read_toml(path)
    found: dict[str, dict[str, Any]] = document[PODS] if PODS in _tables(document) else {}
    for name, values in found.items():
        if not isinstance(values, dict):
            raise InvalidSettings(f"{path}: {PODS}.{name} is not a table: write [{PODS}.{name}] above its settings")
    return found


def _tables(document: Mapping[str, Any]) -> list[str]:
    """Return the tables of a file that has such; `pods` alone may be the setting of a gateway."""
    return [name for name in document if name in PARTS or (name == PODS and isinstance(document[name], dict))]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            return tomllib.load(handle)
    except OSError as exc:
        raise InvalidSettings(f"cannot read the configuration file {path}: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise InvalidSettings(f"{path} is not valid TOML: {exc}") from exc
