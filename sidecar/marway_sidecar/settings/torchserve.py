"""Settings about a TorchServe that Marway's runtime did not start."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from marway.settings import ComponentSettings

__all__ = ["TorchServeSettings"]


class TorchServeSettings(ComponentSettings):
    """Where it is, and how it is asked."""

    torchserve_inference: str | None = None
    """REST inference URL of a TorchServe that Marway's runtime did not start, such as http://127.0.0.1:8080. With its
    other three addresses it takes the place of the runtime directory. Its model store must be `archive_store`."""

    torchserve_management: str | None = None
    """REST management URL of that TorchServe, such as http://127.0.0.1:8081."""

    torchserve_grpc_inference: str | None = None
    """gRPC inference address of that TorchServe, such as 127.0.0.1:7070."""

    torchserve_grpc_management: str | None = None
    """gRPC management address of that TorchServe, such as 127.0.0.1:7071."""

    torchserve_key_file: Path | None = None
    """`key_file.json` in that TorchServe's working directory, when it wants tokens; unset, none are sent."""

    torchserve_max_request_bytes: int = Field(6_553_500, ge=1)
    """Largest message that TorchServe takes and gives, bytes: its `max_request_size`, whose default this is."""

    torchserve_batch_delay_ms: int = Field(0, ge=0)
    """How long that TorchServe may wait for a batch of a version's batch rows to fill, milliseconds. 0 makes no
    batches: every lone request would wait so long, and its handlers must be known to answer batches rightly."""

    torchserve_probe_interval_s: float = Field(1.0, gt=0)
    """How often that TorchServe is asked for its models, seconds: that soon a dead or restarted one is noticed."""

    torchserve_probe_timeout_s: float = Field(5.0, gt=0)
    """How long it may take to answer before it counts as down, seconds. A frozen one still accepts connections."""
