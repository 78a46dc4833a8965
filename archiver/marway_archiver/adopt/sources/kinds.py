"""Which kind of source a path is, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from marway.errors import InvalidInput
from marway_archiver.adopt.found import Found, Kind
from marway_archiver.adopt.sources.torchserve import is_torchserve, read_torchserve
from marway_archiver.adopt.sources.wish import Wish

__all__ = ["KINDS", "read_source"]


class _Reader(NamedTuple):
    """Whether a path is of this kind, what reads it, and what one looks like."""

    knows: Callable[[Path], bool]
    read: Callable[[Path, Wish], Found]
    looks: str


KINDS: Final[Mapping[Kind, _Reader]] = {
    "torchserve": _Reader(is_torchserve, read_torchserve, "a model store, a config.properties or a snapshot (.cfg)"),
}


def read_source(source: Path, wish: Wish, *, kind: Kind | None = None) -> Found:
    """Say what a source holds; nothing of it is run or changed.

    Raises:
        InvalidInput: It is not there, is of no kind or of several, or cannot be read.
    """
    if not source.exists():
        raise InvalidInput(f"{source} does not exist")
    if kind is not None:
        return KINDS[kind].read(source, wish)
    fits: list[Kind] = [name for name, reader in KINDS.items() if reader.knows(source)]
    if len(fits) == 1:
        return KINDS[fits[0]].read(source, wish)
    if fits:
        raise InvalidInput(f"{source} may be {' or '.join(fits)}: say which with --kind")
    known = "; ".join(f"{name}: {reader.looks}" for name, reader in KINDS.items())
    raise InvalidInput(f"{source} is no source that is known. {known}")
