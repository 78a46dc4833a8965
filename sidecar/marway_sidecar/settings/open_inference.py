"""Settings about a model server that speaks the Open Inference Protocol."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from marway.settings import ComponentSettings

__all__ = ["OpenInferenceSettings"]


class OpenInferenceSettings(ComponentSettings):
    """Where it is, and how it is asked."""

    open_inference_url: str | None = None
    """REST URL of the server (Triton, MLServer, …), such as http://127.0.0.1:8000. This one or `open_inference_grpc` is
    needed; with both, predictions go over gRPC and all else over REST."""

    open_inference_grpc: str | None = None
    """gRPC address of the server, such as 127.0.0.1:8001. Answers in pieces of Triton need it."""

    open_inference_repository: Path | None = None
    """The server's model repository as this process sees it; this pod's alone. Bundles are unpacked into it."""

    open_inference_manage: bool = True
    """Whether models are loaded and unloaded there. False: somebody else's server, which serves what it has; a version
    is served when the server has this model in this version."""

    open_inference_calls: int = Field(256, ge=1)
    """Requests of one version that the server is given at once; more wait in the pod. Large, as the server has a queue
    and makes batches itself."""

    open_inference_probe_interval_s: float = Field(1.0, gt=0)
    """How often the server is asked for its models, seconds: that soon a dead or restarted one is noticed."""

    open_inference_probe_timeout_s: float = Field(5.0, gt=0)
    """How long it may take to answer before it counts as down, seconds."""
