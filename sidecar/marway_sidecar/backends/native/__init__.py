"""The backend for Marway's own engine: it speaks to the workers themselves, with no model server in between."""

from __future__ import annotations

from collections.abc import Hashable

from marway.wire.native import ENGINE
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.native.server import SERVES, NativeServer
from marway_sidecar.backends.runtime import Announcement
from marway_sidecar.settings import SidecarSettings

__all__ = ["NativeBackend", "NativeServer"]


class NativeBackend(Backend):
    """The engine `native` of Marway's runtime, with the archives that TorchServe takes."""

    serves = SERVES
    by_runtime = True

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        self._announcement = Announcement(settings.runtime_dir)

    def stamp(self) -> Hashable:
        return self._announcement.stamp()

    def connect(self) -> NativeServer | None:
        info = self._announcement.read(ENGINE)
        return NativeServer(info, self.settings.runtime_dir) if info is not None else None

    def trouble(self, *, found: bool) -> str:
        if found:
            return f"the runtime does not answer, though {self._announcement.file} says that it is up"
        return f"no runtime with the engine native is up: {self._announcement.file} is not there"
