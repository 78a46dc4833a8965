"""Settings of the components: flags win over environment, environment over the TOML file, the file over defaults."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from marway.errors import InvalidSettings, clip

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["REGISTRY_ENV", "ComponentSettings", "load_settings"]

REGISTRY_ENV = "MARWAY_REGISTRY"
"""One variable for all components; a component's own `MARWAY_<COMPONENT>_REGISTRY` wins over it."""

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
        file = _Values(settings_cls, cast("dict[str, Any]", init_settings.init_kwargs.get("file", {})))  # type: ignore[attr-defined]
        flags = _Values(settings_cls, cast("dict[str, Any]", init_settings.init_kwargs.get("flags", {})))  # type: ignore[attr-defined]
        shared = _Values(settings_cls, _shared_environment(settings_cls))
        return flags, env_settings, shared, file


class _Values(PydanticBaseSettingsSource):
    """A source that is a plain mapping."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return dict(self._values)


def load_settings(kind: type[T], *, config: Path | None = None, **flags: object) -> T:
    """Return the settings of a component.

    Args:
        kind: Its settings class.
        config: A TOML file of settings, or None.
        flags: What the command line gave; None means not given.

    Raises:
        InvalidSettings: A file that cannot be read, an unknown name or a bad value; the message says which.
    """
    file = _read_toml(config) if config is not None else {}
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        return kind(file=file, flags=given)  # type: ignore[call-arg]
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        prefix = kind.model_config.get("env_prefix", "")
        where = f"{config}: " if config is not None and name in file and name not in given else ""
        known = "" if name in kind.model_fields else f"; known settings: {', '.join(kind.model_fields)}"
        raise InvalidSettings(
            f"{where}setting {clip(name, 60)!r} ({prefix}{name.upper()}): {clip(first['msg'], 200)}{known}"
        ) from exc


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as handle:
            return tomllib.load(handle)
    except OSError as exc:
        raise InvalidSettings(f"cannot read the configuration file {path}: {exc.strerror}") from exc
    except tomllib.TOMLDecodeError as exc:
        raise InvalidSettings(f"{path} is not valid TOML: {exc}") from exc


def _shared_environment(kind: type[BaseSettings]) -> dict[str, Any]:
    registry = os.environ.get(REGISTRY_ENV)
    return {"registry": registry} if registry and "registry" in kind.model_fields else {}
