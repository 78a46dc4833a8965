"""How far an archive may unpack beyond its own size, for whoever packs, publishes and loads."""

from __future__ import annotations

from typing import Final

__all__ = ["BOMB_FROM_BYTES", "MAX_EXPANDED_BYTES", "MAX_RATIO", "expansion_problem"]

MAX_EXPANDED_BYTES: Final = 64 * 1024**3
"""Most bytes that an archive may unpack to."""
MAX_RATIO: Final = 200
"""Weights shrink to a half at best and text to a tenth; deflate ends at 1,032."""
BOMB_FROM_BYTES: Final = 64 * 1024**2
"""An archive that unpacks to more than this and to more than `MAX_RATIO` times its size is a bomb."""


def expansion_problem(size: int, expanded: int) -> str | None:
    """Return what is wrong with an archive of ``size`` bytes that unpacks to ``expanded`` bytes, or None."""
    if expanded > MAX_EXPANDED_BYTES:
        return f"unpacks to more than {MAX_EXPANDED_BYTES >> 30} GiB"
    if expanded > BOMB_FROM_BYTES and expanded > MAX_RATIO * size:
        return f"is a bomb: it unpacks to more than {MAX_RATIO} times its {size} bytes"
    return None
