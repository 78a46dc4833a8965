"""Settings about a TensorFlow Serving."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from marway.settings import ComponentSettings

__all__ = ["TensorFlowServingSettings"]


class TensorFlowServingSettings(ComponentSettings):
    """Where it is, and how it is asked."""

    tensorflow_serving_grpc: str | None = None
    """gRPC address of the TensorFlow Serving of the backend `tensorflow-serving`, such as 127.0.0.1:8500."""

    tensorflow_serving_url: str | None = None
    """REST URL of that TensorFlow Serving, such as http://127.0.0.1:8501, in the place of its gRPC address: only for
    one that Marway does not manage."""

    tensorflow_serving_manage: bool = True
    """Whether versions are loaded and unloaded there. False: it is somebody else's, and a version is served when it
    says that it has it."""

    tensorflow_serving_models: Path | None = None
    """Directory shared with that TensorFlow Serving, into which versions are unpacked. Needed where it is managed."""

    tensorflow_serving_base_path: str | None = None
    """The same directory as that TensorFlow Serving sees it, where that is another path."""

    tensorflow_serving_config: Path | None = None
    """Model config file with models of its own that it is to go on serving beside Marway's: each reload names them too.
    Without one, a reload has it serve Marway's alone."""

    tensorflow_serving_concurrency: int = Field(32, ge=1)
    """How many calls of one version are under way there at once."""

    tensorflow_serving_probe_interval_s: float = Field(1.0, gt=0)
    """How often it is asked whether it has what was loaded, seconds: that soon a dead or restarted one is noticed."""

    tensorflow_serving_probe_timeout_s: float = Field(5.0, gt=0)
    """How long it may take to answer before it counts as down, seconds."""
