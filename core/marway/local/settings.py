"""Settings of `marway up`: `MARWAY_UP_*`, or the table `[up]` of a file, which config/up.toml shows."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from marway.settings import ComponentSettings

__all__ = ["UpSettings"]


class UpSettings(ComponentSettings):
    """All that can be set about `marway up`; the parts that it starts have settings of their own."""

    model_config = SettingsConfigDict(env_prefix="MARWAY_UP_")

    home: Path = Path(".marway")
    """Directory that everything is kept in. Below the current one, so that each project has its own."""
    port: int = Field(8000, ge=0, le=65533)
    """The gateway's port; the admin port is the next, gRPC the one after. 0 takes free ones. 8000 as the gateway's."""
    pods: int = Field(1, ge=1, le=64)
    """How many pods. One: each takes a Java process and, for each version that it has loaded, workers."""
    registry: str | None = None
    """URL of the registry; `MARWAY_REGISTRY` serves as well. Unset, the one in the home."""
    create_registry: bool = False
    """Whether `registry` is made where there is none. No: an empty place may be a volume that is not mounted."""
    demo: bool = False
    """Whether the examples are trained and published, once, and a first prediction is made. No: it takes a minute."""
