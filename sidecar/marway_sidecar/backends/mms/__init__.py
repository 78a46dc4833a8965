"""The backend for AWS's Multi Model Server 1.1, which TorchServe was made from, with its `.mar`s as they are."""

from __future__ import annotations

from typing import Final

from marway.errors import InvalidSettings
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.mms.server import SERVES, MmsServer
from marway_sidecar.settings import SidecarSettings

__all__ = ["MmsBackend", "MmsServer"]

_NEEDED: Final = ("mms_inference", "mms_management")


class MmsBackend(Backend):
    """A Multi Model Server whose model store is the archive store.

    Raises:
        InvalidSettings: They do not say where it is.
    """

    serves = SERVES

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        inference, management = settings.mms_inference, settings.mms_management
        if inference is None or management is None:
            missing = " and ".join(name for name in _NEEDED if getattr(settings, name) is None)
            raise InvalidSettings(f"the backend mms needs the URLs of a Multi Model Server: {missing} is not set")
        self._inference, self._management = inference, management
        self.probe_interval_s = settings.mms_probe_interval_s
        self.probe_timeout_s = settings.mms_probe_timeout_s

    def connect(self) -> MmsServer:
        return MmsServer(self._inference, self._management, batch_delay_ms=self.settings.mms_batch_delay_ms)

    def trouble(self, *, found: bool) -> str:
        return f"Multi Model Server does not answer at {self._management}"
