"""Which versions go when memory is wanted.

A version that goes for memory is unregistered, not just left without workers. Both free the same memory: a registered
version without workers takes 40 KiB. Staying registered would save 5 ms of a come-back that takes 50 ms at the least
(the worker's start), and would keep the unpacked archive on the model server's disk, which nothing else bounds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["Candidate", "choose"]


@dataclass(frozen=True, slots=True)
class Candidate:
    """An idle, unpinned version with workers: its memory in bytes, and when it was used last (monotonic)."""

    key: str
    size_bytes: int
    used_at: float


def choose(candidates: Iterable[Candidate], needed_bytes: int) -> list[Candidate]:
    """Return the versions to evict, least recently used first; none when all together would not do.

    Of those that the order gives, the more recently used are spared again where the others do without them.
    """
    chosen: list[Candidate] = []
    freed = 0
    for candidate in sorted(candidates, key=lambda candidate: candidate.used_at):
        if freed >= needed_bytes:
            break
        chosen.append(candidate)
        freed += candidate.size_bytes
    if freed < needed_bytes:
        return []
    for candidate in reversed(chosen[:]):
        if freed - candidate.size_bytes >= needed_bytes:
            chosen.remove(candidate)
            freed -= candidate.size_bytes
    return chosen
