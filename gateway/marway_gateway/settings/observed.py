"""What is kept of predictions and feedback, and what is done with it in the background."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from marway.settings import ComponentSettings
from marway_gateway.settings.units import Bytes, Count

__all__ = ["ObservedSettings"]


class ObservedSettings(ComponentSettings):
    """What is kept of predictions and feedback, and what is done with it in the background."""

    observations: str | None = None
    """URL of the store that has observations of predictions and feedback: a directory or S3, as for the registry. None
    by default, which means the registry's; `MARWAY_OBSERVATIONS` serves as well."""
    observations_flush_s: Annotated[float, Field(ge=0.1, le=3600)] = 10.0
    """How long in seconds observations wait at most before they are in the store, while it is there: what `kill -9`
    loses. 10 keeps files few; with hundreds of models in use, each of which is a file, it takes longer."""
    observations_flush_rows: Count = 50_000
    """Observations of one model that are written without waiting for that. 50,000 are some 3 MB as a file."""
    observations_flush_bytes: Bytes = 16 * 1024 * 1024
    """Bytes of memory of one model's observations that are written without waiting. 16 MiB, as inputs and outputs may
    be large."""
    observations_buffer_rows: Count = 100_000
    """Observations that wait for the store, of all models; while it is away the oldest are given up for new ones.
    100,000 outlast half a minute at 3,000 predictions a second."""
    observations_buffer_bytes: Bytes = 64 * 1024 * 1024
    """Bytes of memory that they may take. 64 MiB still fits a small container."""
    observations_body_bytes: Bytes = 1024 * 1024
    """Largest input or output in bytes that is kept where a version's serving settings say `bodies`. 1 MiB, as more
    than `buffered_body_bytes` is not held in memory anyway."""

    feedback_interval_s: Annotated[float, Field(ge=0, le=60, allow_inf_nan=False)] = 0.5
    """Shortest time in seconds between two files of feedback, and so the longest that a call waits for its file to be
    begun. 0.5: at most 7,200 files an hour, which `marway gc` merges; what comes after a pause is written at once."""
    feedback_bytes: Bytes = 64 * 1024 * 1024
    """Bytes of calls with feedback that may be in hand at a time, sent and not yet kept; more are refused with 429,
    save a call that is the only one. 64 MiB is one body of the largest size, or many thousand usual ones."""

    duties: bool = True
    """Whether this gateway may do what one among all gateways of a registry does in the background: events, quality,
    drift. It takes a moment of a processor now and then, in a process of its own; off where others do it, or where the
    registry may only be read."""
    webhooks_file: Path | None = None
    """TOML file of webhooks that are sent events, `[[webhook]]` with `name`, `url`, `secret` or `secret_file`, `types`
    and `models`. Read again when it changes. None by default: events are kept, and sent to nobody. All gateways of a
    registry that have one should have the same: one of them sends."""
    quality_interval_s: Annotated[float, Field(ge=1, le=86400)] = 60.0
    """Time in seconds between two looks at the quality of versions that declare it; longer where that took
    more than a tenth of a processor, and five times as long where none does. A minute: truth comes late anyway."""
    drift_interval_s: Annotated[float, Field(ge=1, le=86400)] = 300.0
    """The same of drift. Five minutes, as what arrives in a day or more hardly changes sooner."""

    evaluation_disk_bytes: Annotated[int, Field(ge=1024 * 1024)] = 1024 * 1024 * 1024
    """Bytes of the temporary directory that these looks may take for copies of observations in S3, and as many again
    for what does not fit into memory. 1 GiB holds some ten million predictions without their bodies; a model whose
    windows hold more is named in the log and not looked at."""
