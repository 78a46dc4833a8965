"""Which backends are installed: entry points of the group `marway.backends`."""

from __future__ import annotations

from collections.abc import Collection
from importlib.metadata import entry_points
from typing import Final, cast

from marway.errors import InvalidSettings
from marway_sidecar.backends.base import Backend
from marway_sidecar.settings import SidecarSettings

__all__ = ["open_backend"]

_GROUP: Final = "marway.backends"


def open_backend(settings: SidecarSettings, *, for_others: Collection[str] = ()) -> Backend:
    """Return the backend that the settings name.

    Args:
        settings: Of the sidecar.
        for_others: Names of settings that are meant for pods of other backends.

    Raises:
        InvalidSettings: It is not installed, cannot be imported, or there are settings of another backend.
    """
    installed = {entry.name: entry for entry in entry_points(group=_GROUP)}
    entry = installed.get(settings.backend)
    if entry is None:
        raise InvalidSettings(
            f"there is no backend {settings.backend!r}: installed are {', '.join(sorted(installed)) or 'none'}"
        )
    try:
        kind = cast("type[Backend]", entry.load())
    except ImportError as exc:
        raise InvalidSettings(f"the backend {settings.backend!r} ({entry.value}) cannot be imported: {exc}") from exc
    for other in sorted(installed.keys() - {settings.backend}):
        prefix = f"{other.replace('-', '_')}_"
        given = sorted(name for name in settings.model_fields_set.difference(for_others) if name.startswith(prefix))
        if given:
            raise InvalidSettings(
                f"the backend {settings.backend} has no use for {', '.join(given)}: they are about the backend {other}"
            )
    return kind(settings)
