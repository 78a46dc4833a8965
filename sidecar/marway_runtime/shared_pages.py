"""What a forked process still shares with the one that it was forked from, and what it has copied by writing to it.

After a fork both have the same pages; whoever writes to one gets a copy of it. A page of a forked process that is
private and dirty, where its parent has memory too, is such a copy: what it took for itself lies elsewhere
(`/proc/PID/smaps`, proc_pid_smaps(5)). Where an area of the parent has grown in the child, its copies cannot be told
from what is new there; the smaller of both sizes is taken.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

__all__ = ["Areas", "areas", "copied_bytes", "private_bytes"]

Areas = tuple[tuple[int, int], ...]
"""Where a process has memory: from and to, in the order of addresses."""

_AREA: Final = re.compile(rb"^([0-9a-f]+)-([0-9a-f]+) ", re.MULTILINE)
_AREA_OR_DIRTY: Final = re.compile(rb"^(?:([0-9a-f]+)-([0-9a-f]+) |Private_Dirty: +(\d+) kB)", re.MULTILINE)
_PRIVATE: Final = re.compile(rb"^Private_(?:Clean|Dirty): +(\d+) kB", re.MULTILINE)


def private_bytes(pid: int | None = None) -> int:
    """Return the memory of a process, this one by default, that no other process has, in bytes.

    Raises:
        OSError: It is gone, or this is no Linux.
    """
    text = Path(f"/proc/{pid or 'self'}/smaps_rollup").read_bytes()
    return sum(int(size) for size in _PRIVATE.findall(text)) * 1024


def areas(pid: int) -> Areas:
    """Return where a process has memory.

    Raises:
        OSError: It is gone.
    """
    text = Path(f"/proc/{pid}/maps").read_bytes()
    return tuple((int(start, 16), int(end, 16)) for start, end in _AREA.findall(text))


def copied_bytes(pid: int, parent: Areas) -> int:
    """Return the memory that a process has copied by writing to what it shared with its parent, in bytes.

    Raises:
        OSError: It is gone.
    """
    copied = 0
    theirs = iter(parent)
    start, end = next(theirs, (0, 0))
    for own_start, own_end, dirty in _dirty(Path(f"/proc/{pid}/smaps").read_bytes()):
        common = 0
        while end and start < own_end:
            common += max(0, min(end, own_end) - max(start, own_start))
            if end > own_end:
                break  # it reaches into the next one
            start, end = next(theirs, (0, 0))
        copied += min(dirty, common)
    return copied


def _dirty(smaps: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield each area that has private dirty memory: from, to, bytes."""
    start = end = 0
    for first, last, dirty in _AREA_OR_DIRTY.findall(smaps):
        if first:
            start, end = int(first, 16), int(last, 16)
        elif dirty != b"0":
            yield start, end, int(dirty) * 1024
