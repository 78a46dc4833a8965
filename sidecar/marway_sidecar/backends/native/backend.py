"""Finds the runtime of a pod whose engine is `native`."""

from __future__ import annotations

import logging
from collections.abc import Hashable
from typing import Final

from marway.errors import InvalidSettings
from marway.wire.native import ENGINE
from marway.wire.runtime import RUNTIME_FILE, read_runtime_info
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.native.server import SERVES, NativeServer
from marway_sidecar.settings import SidecarSettings

__all__ = ["NativeBackend"]

logger = logging.getLogger(__name__)

_OF_ANOTHER: Final = "torchserve_"


class NativeBackend(Backend):
    """The engine `native` of Marway's runtime, with the archives that TorchServe takes.

    Raises:
        InvalidSettings: They are about a TorchServe of one's own.
    """

    serves = SERVES

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        given = sorted(name for name in settings.model_fields_set if name.startswith(_OF_ANOTHER))
        if given:
            raise InvalidSettings(f"the backend native has no use for {', '.join(given)}: they are about a TorchServe")
        self._file = settings.runtime_dir / RUNTIME_FILE

    def stamp(self) -> Hashable:
        try:
            status = self._file.stat()
        except FileNotFoundError:
            return None
        return status.st_ino, status.st_mtime_ns

    def connect(self) -> NativeServer | None:
        try:
            info = read_runtime_info(self.settings.runtime_dir)
        except (ValueError, OSError) as exc:
            logger.error("%s cannot be read: %s", self._file, exc)
            return None
        if info is not None and info.engine != ENGINE:
            logger.error("%s announces the engine %s, not %s", self._file, info.engine, ENGINE)
            return None
        return NativeServer(info, self.settings.runtime_dir) if info is not None else None

    def trouble(self, *, found: bool) -> str:
        if found:
            return f"the runtime does not answer, though {self._file} says that it is up"
        return f"no runtime with the engine native is up: {self._file} is not there"
