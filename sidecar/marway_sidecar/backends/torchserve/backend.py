"""Finds the TorchServe of a pod: the one that Marway's runtime announces, or the one whose addresses are settings."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Final

from marway.errors import InvalidSettings
from marway.refs import new_ulid
from marway.wire.runtime import RuntimeInfo
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.runtime import Announcement
from marway_sidecar.backends.torchserve.adapter import SERVES, TorchServeAdapter
from marway_sidecar.settings import SidecarSettings

__all__ = ["TorchServeBackend"]

_ADDRESSES: Final = ("inference", "management", "grpc_inference", "grpc_management")


class TorchServeBackend(Backend):
    """TorchServe, with the archives that `torch-model-archiver` and `marway pack` make.

    Raises:
        InvalidSettings: They name some of the addresses of a TorchServe and not all.
    """

    serves = SERVES

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        self._external = _external_addresses(settings)
        self.by_runtime = self._external is None
        if self._external is not None:
            self.probe_interval_s = settings.torchserve_probe_interval_s
            self.probe_timeout_s = settings.torchserve_probe_timeout_s
        self._announcement = Announcement(settings.runtime_dir)

    def stamp(self) -> Hashable:
        if self._external is not None:
            return None  # nothing says when it starts or stops: it is asked
        return self._announcement.stamp()

    def connect(self) -> TorchServeAdapter | None:
        settings = self.settings
        if self._external is not None:
            info = RuntimeInfo(
                boot_id=new_ulid(),
                pid=0,  # it may be in another process name space
                addresses=self._external,
                model_store=settings.archive_store,
                envelope=0,
                max_request_bytes=settings.torchserve_max_request_bytes,
                memory_limit_bytes=None,
                versions={},
            )
            return TorchServeAdapter(
                info, key_file=settings.torchserve_key_file, batch_delay_ms=settings.torchserve_batch_delay_ms
            )
        announced = self._announcement.read(self.name)
        return TorchServeAdapter(announced, runtime_dir=settings.runtime_dir) if announced is not None else None

    def trouble(self, *, found: bool) -> str:
        if self._external is not None:
            return f"TorchServe does not answer at {self._external['grpc_management']}"
        if found:
            return f"TorchServe does not answer, though {self._announcement.file} says that it is up"
        return f"no TorchServe is up: {self._announcement.file} is not there"


def _external_addresses(settings: SidecarSettings) -> Mapping[str, str] | None:
    given = {name: getattr(settings, f"torchserve_{name}") for name in _ADDRESSES}
    if not any(given.values()):
        return None
    missing = [f"torchserve_{name}" for name in _ADDRESSES if not given[name]]
    if missing:
        raise InvalidSettings(f"a TorchServe of your own needs all four addresses: {', '.join(missing)} is missing")
    return given
