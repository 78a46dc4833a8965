"""Which version's workers run in which environment, and the fork servers of environments."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from marway.refs import check_model_name, check_version
from marway.wire.environments import EnvironmentList, EnvironmentState, EnvironmentUse
from marway_runtime.directories import Directories
from marway_runtime.environments.installer import Installer
from marway_runtime.environments.store import BuildOutcome, EnvironmentStore
from marway_runtime.settings import RuntimeSettings
from marway_runtime.worker.overlay import write_overlay

__all__ = ["Environments", "Forks", "MakeForks", "open_environments"]

logger = logging.getLogger(__name__)


class Forks(Protocol):
    """A fork server: `forkserver.process.ForkServer`."""

    @property
    def pid(self) -> int | None: ...

    async def run(self) -> None: ...

    async def settled(self) -> None: ...


class MakeForks(Protocol):
    """Makes the fork server of an environment, which listens at ``socket``."""

    def __call__(self, *, socket: Path, overlay: Path) -> Forks: ...


@dataclass(eq=False, slots=True)
class _ForkServer:
    server: Forks
    socket: Path
    task: asyncio.Task[None]


@dataclass(frozen=True, slots=True)
class _Use:
    environment: str
    name: str
    version: str


class Environments:
    """The environments that versions are in.

    Args:
        store: Builds them.
        overlays: Directory in which TorchServe's workers look for their version's environment.
        forks: Makes the fork server of an environment; None where workers are not forked.
        sockets: A directory with a short path, for these sockets.
    """

    def __init__(
        self,
        store: EnvironmentStore,
        overlays: Path,
        forks: MakeForks | None,
        sockets: Path,
    ) -> None:
        self._store = store
        self._overlays = overlays
        self._forks = forks
        self._sockets = sockets
        self._uses: dict[str, _Use] = {}  # by the version's name in the engine
        self._fork_servers: dict[str, _ForkServer] = {}  # by the environment's name
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def overlays(self) -> Path:
        return self._overlays

    def pids(self) -> list[int]:
        """Return the processes that were started for environments: fork servers, and what installs."""
        pids = (*(each.server.pid for each in self._fork_servers.values()), self._store.installing)
        return [pid for pid in pids if pid is not None]

    def listed(self) -> EnvironmentList:
        """Return all that are there. Blocks."""
        found = self._store.sizes()
        return EnvironmentList(
            environments=tuple(
                EnvironmentState(
                    digest=name.partition("-")[0],
                    size_bytes=size,
                    used_by=tuple(sorted(who for who, use in self._uses.items() if use.environment == name)),
                )
                for name, size in found.items()
            ),
            size_bytes=sum(found.values()),
            limit_bytes=self._store.limit_bytes,
        )

    async def enter(self, server_name: str, use: EnvironmentUse) -> None:
        """Have a version's environment there, for as long as the version is loaded.

        Raises:
            LoadFailed: It cannot be built.
            Unavailable: There is no room for it.
            InvalidReference: The version's name is none.
        """
        check_model_name(use.name)
        check_version(use.version)
        built = self._store.existing(use.lock) or await self._store.built(use, in_use=self._in_use)
        entered = _Use(built, use.name, use.version) if built is not None else None
        if self._uses.get(server_name) == entered:
            return
        self.leave(server_name)
        if built is None or entered is None:
            return
        self._uses[server_name] = entered
        await asyncio.to_thread(write_overlay, self._overlays, use.name, use.version, self._store.path(built))

    def _in_use(self) -> set[str]:
        return {each.environment for each in self._uses.values()}

    def overlay(self, server_name: str) -> Path | None:
        """Return what goes in front of this Python's packages for a version's workers, if anything does."""
        use = self._uses.get(server_name)
        return self._store.path(use.environment) if use is not None else None

    def fork_socket(self, server_name: str) -> Path | None:
        """Return where the fork server of a version's environment listens; None where it has none."""
        use = self._uses.get(server_name)
        started = self._fork_servers.get(use.environment) if use is not None else None
        return started.socket if started is not None else None

    async def start_forks(self, server_name: str) -> None:
        """Have a fork server for a version's environment, and return once it is ready, or has failed to be."""
        use = self._uses.get(server_name)
        if use is None or self._forks is None:
            return
        started = self._fork_servers.get(use.environment)
        if started is None:
            socket = self._sockets / f"fork-{use.environment[:12]}.sock"
            server = self._forks(socket=socket, overlay=self._store.path(use.environment))
            task = asyncio.create_task(server.run(), name=f"keep-forkserver {use.environment[:12]}")
            started = self._fork_servers[use.environment] = _ForkServer(server, socket, task)
        await started.server.settled()

    def leave(self, server_name: str) -> None:
        """Note that a version is not loaded any more; one that is in none is no error."""
        use = self._uses.pop(server_name, None)
        if use is None:
            return
        self._store.touch(use.environment)
        with contextlib.suppress(OSError):
            write_overlay(self._overlays, use.name, use.version, None)
        if use.environment not in self._in_use():
            started = self._fork_servers.pop(use.environment, None)
            if started is not None:
                started.task.cancel()  # its memory is free again, and it is back in two seconds
                self._ending.add(started.task)
                started.task.add_done_callback(self._ending.discard)

    async def clear(self) -> None:
        """Note that no version is loaded: the engine ended."""
        for server_name in list(self._uses):
            self.leave(server_name)
        await asyncio.gather(*self._ending, return_exceptions=True)

    async def aclose(self) -> None:
        """End the fork servers, and let another runtime have the directory."""
        await self.clear()
        self._store.close()


def open_environments(
    settings: RuntimeSettings,
    directories: Directories,
    forks: MakeForks | None,
    observe: Callable[[BuildOutcome, float], None],
) -> Environments:
    """Return the environments of a runtime, which tell ``observe`` of each build, as `EnvironmentStore` does.

    Nothing is read or made before a version wants one.
    """
    root = settings.environments or settings.runtime_dir / "environments"
    installer = Installer(directories.short, timeout_s=settings.environment_timeout_s)
    store = EnvironmentStore(
        root, settings.model_store, installer, limit_bytes=settings.environments_bytes, observe=observe
    )
    return Environments(store, directories.short / "overlays", forks, directories.short)
