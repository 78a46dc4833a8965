"""What a directory of a model server's says of the model in it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from marway.records import Signature

__all__ = ["Layout", "folders"]


@dataclass(frozen=True, slots=True)
class Layout:
    """What is known of a model from its directory.

    Attributes:
        signature: Its tensors, where a configuration says them.
        framework: What it was made with, where that is told.
        streaming: Whether its answers come in pieces.
        rows_max: Most rows of one request, where it is said that requests have rows.
        warnings: One sentence each on what is allowed and may surprise.
    """

    signature: Signature = field(default_factory=Signature)
    framework: str | None = None
    streaming: bool = False
    rows_max: int = 1
    warnings: tuple[str, ...] = ()


def folders(names: Iterable[str]) -> list[str]:
    """Return the directories that files lie in, of the first level."""
    return sorted({name.partition("/")[0] for name in names if "/" in name})
