"""The one seam between the event loop and changes of the registry, whose calls block: a few threads of their own.

Apart from those that read, so that a change that waits for others, or for a slow store, delays no request.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Concatenate, Final, ParamSpec, TypeVar

from marway.records import HistoryEntry
from marway.refs import check_model_id
from marway.registry import Change, Registry
from marway.resolve.resolver import Resolver

__all__ = ["RegistryWriter"]

P = ParamSpec("P")
T = TypeVar("T")
_THREADS: Final = 4


class RegistryWriter:
    """Changes the registry, and tells the resolver, so that this gateway's requests see each change at once.

    A change that was begun is done to its end, whether or not its caller waits for it.

    Args:
        registry: What is changed.
        resolver: Told which model was.
        changed: Told about each change that was made, in a thread.
    """

    def __init__(
        self,
        registry: Registry,
        resolver: Resolver,
        *,
        changed: Callable[[str, HistoryEntry], None] | None = None,
    ) -> None:
        self.registry = registry
        self._changed = changed
        self._resolver = resolver
        self._pool = ThreadPoolExecutor(max_workers=_THREADS, thread_name_prefix="registry-write")

    async def call(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call, and return what it returns or raise what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, lambda: function(*args, **kwargs))

    async def change(
        self, function: Callable[Concatenate[str, P], Change], model: str, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[str, Change]:
        """Run a blocking change of a model, and return its name as it is written, too.

        Requests here see the change when this returns.
        """
        name, changes = await self.changes(lambda name: [function(name, *args, **kwargs)], model)
        return name, changes[0]

    async def changes(
        self, function: Callable[Concatenate[str, P], Iterable[Change]], model: str, *args: P.args, **kwargs: P.kwargs
    ) -> tuple[str, list[Change]]:
        """Run what changes a model several times, as `change` runs what changes it once."""
        name = await self.call(self.registry.find, check_model_id(model))

        def made() -> list[Change]:
            done = []
            for each in function(name, *args, **kwargs):  # those before one that fails are told of, too
                if self._changed is not None:
                    self._changed(name, each.entry)
                done.append(each)
            return done

        try:
            return name, await self.call(made)
        finally:
            await self._resolver.refresh(name)  # also after a failure: its outcome may be unknown

    async def aclose(self) -> None:
        """Drop what is queued and let running calls end on their own."""
        self._pool.shutdown(wait=False, cancel_futures=True)
