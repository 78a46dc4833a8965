"""Settings about a Multi Model Server."""

from __future__ import annotations

from pydantic import Field

from marway.settings import ComponentSettings

__all__ = ["MmsSettings"]


class MmsSettings(ComponentSettings):
    """Where it is, and how it is asked."""

    mms_inference: str | None = None
    """Inference URL of the Multi Model Server of the backend `mms`, such as http://127.0.0.1:8080. Its model store must
    be `archive_store`."""

    mms_management: str | None = None
    """Management URL of that Multi Model Server, such as http://127.0.0.1:8081."""

    mms_batch_delay_ms: int = Field(0, ge=0)
    """How long that server may wait for a batch of a version's batch rows to fill, milliseconds. 0 makes no batches:
    every lone request would wait so long, and its handlers must be known to answer batches rightly."""

    mms_probe_interval_s: float = Field(1.0, gt=0)
    """How often that server is asked for its models, seconds: that soon a dead or restarted one is noticed."""

    mms_probe_timeout_s: float = Field(5.0, gt=0)
    """How long it may take to answer before it counts as down, seconds. A frozen one still accepts connections."""
