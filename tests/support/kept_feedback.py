"""What feedback a store has."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq

from marway.objects import ObjectStore
from marway_observations.layout import FEEDBACK

__all__ = ["feedback_files", "kept_feedback"]


def feedback_files(store: ObjectStore) -> list[list[dict[str, Any]]]:
    """Return the rows of each file, in the order of their keys; a file that cannot be read is an error."""
    keys = sorted(store.keys(FEEDBACK))
    return [pq.read_table(io.BytesIO(store.get(key).data)).to_pylist() for key in keys]


def kept_feedback(store: ObjectStore) -> list[dict[str, Any]]:
    """Return all rows."""
    return [row for rows in feedback_files(store) for row in rows]
