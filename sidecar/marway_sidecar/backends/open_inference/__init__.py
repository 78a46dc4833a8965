"""The backend for servers of the Open Inference Protocol: Triton, MLServer, OpenVINO, KServe's runtimes."""

from marway_sidecar.backends.open_inference.backend import OpenInferenceBackend

__all__ = ["OpenInferenceBackend"]
