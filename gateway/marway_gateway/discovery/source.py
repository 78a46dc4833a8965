"""What every way to find pods offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from marway_gateway.pod_addresses import PodAddress

__all__ = ["Changed", "FoundPod", "Source"]

Changed = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class FoundPod:
    """A pod, and whether it is on its way out.

    Attributes:
        address: Its name and URL.
        leaving: Whether it is being terminated: it gets no new work that another pod can do.
    """

    address: PodAddress
    leaving: bool = False


class Source(Protocol):
    """A place where pods are found. While it cannot be asked, the pods found last stay."""

    @property
    def pods(self) -> Sequence[FoundPod]:
        """Those that were found last."""

    @property
    def trouble(self) -> str | None:
        """Why it cannot be asked, or None while it can."""

    async def find(self) -> None:
        """Look once, for a bounded time; what goes wrong becomes `trouble`."""

    async def follow(self, changed: Changed) -> None:
        """Keep looking until cancelled, and tell of each change."""

    async def aclose(self) -> None:
        """Let go of connections; nothing is asked afterwards."""
