"""What serves models: an engine each, of which a runtime has one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:  # workers import this package too, and have none of these
    from starlette.types import ASGIApp

    from marway.wire.runtime import KeptWeights, RuntimeInfo
    from marway_runtime.workers import Worker

__all__ = ["Engine"]


class Engine(Protocol):
    """One start of an engine; a new start takes a new object."""

    @property
    def pid(self) -> int | None:
        """Its process, while it has one of its own."""

    @property
    def worker_names(self) -> Path:
        """The folder where its workers write which version they serve, each in a file named by its pid."""

    async def start(self) -> RuntimeInfo:
        """Start it and return where it answers, once it does.

        Raises:
            RuntimeDown: It does not.
        """

    async def wait(self) -> int:
        """Return the exit status of its process once that has ended."""

    async def until_frozen(self, info: RuntimeInfo, *, silent: Callable[[], None], back: Callable[[], None]) -> None:
        """Return when it has not answered for `frozen_timeout_s`.

        Args:
            info: What `start` returned.
            silent: Called when it does not answer, once.
            back: Called when it answers again after that.
        """

    async def aclose(self, *, gently: bool = True) -> None:
        """Stop it and its workers; safe to call twice, and when it is dead already.

        Args:
            gently: Whether it may stop by itself first; a frozen one cannot.
        """

    def workers(self) -> list[Worker]:
        """Return its workers in the order of their pids. Blocks."""

    def weights(self) -> list[KeptWeights]:
        """Return the processes that have a version's weights for its workers, those of parked versions among them."""

    def give_up_parked(self) -> bool:
        """End the process with the weights of the version that has been parked longest; return whether one was."""

    @property
    def app(self) -> ASGIApp | None:
        """What `runtime.sock` answers for it beside what it always does."""
