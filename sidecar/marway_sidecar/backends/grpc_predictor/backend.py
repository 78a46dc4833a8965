"""Finds the predictor of a pod: its address and its model directory are settings."""

from __future__ import annotations

from marway.errors import InvalidSettings
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.grpc_predictor.server import SERVES, PredictorServer
from marway_sidecar.backends.model_directory import ModelDirectory
from marway_sidecar.settings import SidecarSettings

__all__ = ["GrpcPredictorBackend"]


class GrpcPredictorBackend(Backend):
    """A predictor, with bundles of the files that it wants in its model directory.

    Raises:
        InvalidSettings: They do not say where it is, or where its models are.
    """

    serves = SERVES

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        self.probe_interval_s = settings.grpc_predictor_probe_interval_s
        self.probe_timeout_s = settings.grpc_predictor_probe_timeout_s
        models = settings.grpc_predictor_models
        if settings.grpc_predictor_address is None or (models is None and settings.grpc_predictor_manage):
            raise InvalidSettings(
                "the backend grpc-predictor needs grpc_predictor_address, such as 127.0.0.1:51001, and "
                "grpc_predictor_models, the predictor's model directory, unless grpc_predictor_manage is false"
            )
        if not settings.grpc_predictor_manage and models is not None:
            raise InvalidSettings(
                "with grpc_predictor_manage = false nothing is put into grpc_predictor_models: unset it"
            )
        self._address, self._models = settings.grpc_predictor_address, models
        self.directory = models

    def connect(self) -> PredictorServer:
        settings, directory = self.settings, None
        if self._models is not None:
            directory = ModelDirectory(self._models, only_looks=self.only_looks)
        return PredictorServer(
            self._address,
            directory,
            first_document=settings.grpc_predictor_first_document,
            concurrency=settings.grpc_predictor_concurrency,
            max_message_bytes=settings.grpc_predictor_max_message_bytes,
            max_models=settings.grpc_predictor_max_models,
        )

    def trouble(self, *, found: bool) -> str:
        return f"the predictor does not answer at {self._address}"
