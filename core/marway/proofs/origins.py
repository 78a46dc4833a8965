"""Where versions come from that were not published here."""

from __future__ import annotations

from marway.stored import Frozen

__all__ = ["CopyOrigin"]


class CopyOrigin(Frozen):
    """Where a version was copied from, in its history entry, which is of the kind `serving` and names none.

    So readers from before there were copies take it for serving settings of which none was changed.

    Attributes:
        registry: URL of the registry that it came from.
        registry_id: What tells that registry from others; None for one from before there was that.
        file: Name of the file that brought it, where it came by one.
    """

    registry: str
    registry_id: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        return self.registry + (f" ({self.file})" if self.file is not None else "")
