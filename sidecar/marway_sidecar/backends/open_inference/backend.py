"""Finds the Open Inference server of a pod, whose addresses are settings."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from marway.errors import InvalidSettings
from marway.wire.pods import Remark
from marway_sidecar.backends.base import Backend, ModelServer
from marway_sidecar.backends.open_inference.files import Repository
from marway_sidecar.backends.open_inference.grpc_wire import GrpcWire
from marway_sidecar.backends.open_inference.look import of_repository
from marway_sidecar.backends.open_inference.rest import RestWire
from marway_sidecar.backends.open_inference.server import SERVES, OpenInferenceServer
from marway_sidecar.backends.open_inference.wire import Wire
from marway_sidecar.settings import SidecarSettings

__all__ = ["OpenInferenceBackend"]


class OpenInferenceBackend(Backend):
    """Triton, MLServer and other servers of the Open Inference Protocol, with bundles of their model directories.

    Raises:
        InvalidSettings: They name no address of a server, or no repository of one that is to be managed.
    """

    serves = SERVES
    tested = MappingProxyType({"triton": "2.51.0", "mlserver": "1.7.1"})

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        if not settings.open_inference_url and not settings.open_inference_grpc:
            raise InvalidSettings(
                "the backend open-inference needs the address of its server: set open_inference_url (such as "
                "http://127.0.0.1:8000), open_inference_grpc (such as 127.0.0.1:8001), or both"
            )
        if settings.open_inference_manage and settings.open_inference_repository is None:
            raise InvalidSettings(
                "the backend open-inference unpacks bundles into its server's model repository: set "
                "open_inference_repository to it, or open_inference_manage = false for a server that is not Marway's"
            )
        if not settings.open_inference_manage and settings.open_inference_repository is not None:
            raise InvalidSettings(
                "open_inference_repository has no use with open_inference_manage = false: nothing is written there"
            )
        self.directory = settings.open_inference_repository
        self.probe_interval_s = settings.open_inference_probe_interval_s
        self.probe_timeout_s = settings.open_inference_probe_timeout_s

    def connect(self) -> OpenInferenceServer:
        settings = self.settings
        ways = self._ways()
        root = settings.open_inference_repository if not self.only_looks else None
        return OpenInferenceServer(
            ways[0],
            ways[-1],
            Repository(root, self.name) if root is not None else None,
            calls_per_worker=settings.open_inference_calls,
            in_pieces=bool(settings.open_inference_grpc),
        )

    def _ways(self) -> list[Wire]:
        settings = self.settings
        rest = RestWire(settings.open_inference_url) if settings.open_inference_url else None
        grpc = GrpcWire(settings.open_inference_grpc) if settings.open_inference_grpc else None
        return [way for way in (rest, grpc) if way is not None]

    def trouble(self, *, found: bool) -> str:
        settings = self.settings
        return f"no model server answers at {settings.open_inference_url or settings.open_inference_grpc}"

    async def examine(self, server: ModelServer) -> Sequence[Remark]:
        found: list[Remark] = []
        if not self.settings.open_inference_grpc:
            advice = "set open_inference_grpc: predictions are faster over it, and Triton's decoupled models need it"
            found.append(Remark("warning", "it is asked over REST alone: no version can answer in pieces", advice))
        root = self.settings.open_inference_repository
        if root is not None:
            ways = self._ways()
            try:
                found += await of_repository(ways[0], root, timeout_s=self.probe_timeout_s)
            finally:
                for way in ways:
                    await way.aclose()
        return found
