"""The backend for TensorFlow Serving, with SavedModels in bundles."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format

from marway.errors import InvalidSettings
from marway_sidecar.backends.base import Backend
from marway_sidecar.backends.tensorflow_serving.model_list import ModelList
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.rest import RestTransport
from marway_sidecar.backends.tensorflow_serving.server import SERVES, TensorFlowServing
from marway_sidecar.backends.tensorflow_serving.transport import GrpcTransport
from marway_sidecar.settings import SidecarSettings

__all__ = ["TensorFlowServing", "TensorFlowServingBackend"]


class TensorFlowServingBackend(Backend):
    """A TensorFlow Serving whose models are unpacked into a directory that it shares, or somebody else's.

    Raises:
        InvalidSettings: They do not say where it is, or go together.
    """

    serves = SERVES

    def __init__(self, settings: SidecarSettings) -> None:
        super().__init__(settings)
        _check(settings)
        self._address = settings.tensorflow_serving_grpc or settings.tensorflow_serving_url or ""
        self._last: TensorFlowServing | None = None
        self._others = _models_of(settings.tensorflow_serving_config)
        self.directory = settings.tensorflow_serving_models
        self.probe_interval_s = settings.tensorflow_serving_probe_interval_s
        self.probe_timeout_s = settings.tensorflow_serving_probe_timeout_s

    def connect(self) -> TensorFlowServing:
        settings, models = self.settings, None
        over_grpc = settings.tensorflow_serving_grpc is not None
        transport = GrpcTransport(self._address) if over_grpc else RestTransport(self._address)
        directory = self.directory
        if directory is not None and not self.only_looks:
            base_path = settings.tensorflow_serving_base_path or str(directory.absolute())
            models = ModelList(transport, directory, base_path=base_path, others=self._others)
        self._last = TensorFlowServing(transport, models, concurrency=settings.tensorflow_serving_concurrency)
        return self._last

    def trouble(self, *, found: bool) -> str:
        if self._last is not None and self._last.refusal is not None:
            return self._last.refusal
        return f"TensorFlow Serving does not answer at {self._address}"


def _check(settings: SidecarSettings) -> None:
    grpc, url, models = (
        settings.tensorflow_serving_grpc,
        settings.tensorflow_serving_url,
        settings.tensorflow_serving_models,
    )
    if (grpc is None) == (url is None):
        raise InvalidSettings(
            "the backend tensorflow-serving needs one address of a TensorFlow Serving: tensorflow_serving_grpc, or "
            "tensorflow_serving_url for one that Marway does not manage"
        )
    if not settings.tensorflow_serving_manage:
        others = ("tensorflow_serving_models", "tensorflow_serving_base_path", "tensorflow_serving_config")
        given = [name for name in others if getattr(settings, name) is not None]
        if given:
            raise InvalidSettings(
                f"tensorflow_serving_manage is false, so nothing is loaded there: {', '.join(given)} has no effect"
            )
    elif grpc is None:
        raise InvalidSettings(
            "TensorFlow Serving loads and unloads over gRPC alone: set tensorflow_serving_grpc in the place of "
            "tensorflow_serving_url, or tensorflow_serving_manage=false"
        )
    elif models is None:
        raise InvalidSettings(
            "tensorflow_serving_models is not set: the directory, shared with TensorFlow Serving, into which versions "
            "are unpacked"
        )


def _models_of(file: Path | None) -> list[pb.ModelConfig]:
    """Return the models of a model config file."""
    if file is None:
        return []
    try:
        config = text_format.Parse(file.read_text(), pb.ModelServerConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError) as exc:
        raise InvalidSettings(f"tensorflow_serving_config: {file} cannot be read: {exc}") from exc
    return list(config.model_config_list.config)
