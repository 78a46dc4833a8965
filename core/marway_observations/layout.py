"""Where observations and feedback are: Hive partitions, as Spark, Trino, Athena and DuckDB read them.

`observations/model=<m>/date=<d>/hour=<h>/<gateway>-<ulid>.parquet` by the hour (UTC) in which predictions ended, and
`feedback/date=<d>/hour=<h>/<gateway>-<ulid>.parquet` by the hour in which feedback came. The columns are in
`marway_observations.schema`; model, date and hour are in the path alone.
"""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from ulid import ULID

from marway.settings import OBSERVATIONS_ENV

__all__ = [
    "FEEDBACK",
    "MERGED",
    "OBSERVATIONS",
    "OBSERVATIONS_ENV",
    "REPLACES",
    "made_at",
    "observations_prefix",
    "partition",
]

OBSERVATIONS: Final = "observations/"
FEEDBACK: Final = "feedback/"
MERGED: Final = "merged-"
"""What the names of files begin with into which `marway gc` put others of their partition."""
REPLACES: Final = b"marway.replaces"
"""Key of a merged file's Parquet metadata: a JSON list of the names of files, in its partition, that it stands for."""


def observations_prefix(model: str) -> str:
    """Return what the keys of all observations of a model begin with."""
    return f"{OBSERVATIONS}model={model}/"


def partition(at: datetime) -> str:
    """Return the part of a key that names the hour of a moment, with a '/' at its end."""
    return at.astimezone(timezone.utc).strftime("date=%Y-%m-%d/hour=%H/")


def made_at(prediction_id: str) -> datetime:
    """Return when a prediction id was made, which is a little before the prediction ended.

    Raises:
        ValueError: It is no ULID.
    """
    return ULID.from_str(prediction_id).datetime
