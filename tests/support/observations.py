"""Observations and feedback as gateways would have written them."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ulid import ULID

from marway.objects import ObjectStore
from marway_observations import schema
from marway_observations.layout import FEEDBACK, MERGED, REPLACES, observations_prefix, partition

__all__ = ["NOON", "feedback", "observation", "write_feedback", "write_merged", "write_observations"]

NOON = datetime(2026, 3, 4, 12, tzinfo=UTC)


def observation(answer: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a row of a prediction that went well; with an answer, its bodies were kept."""
    at: datetime = fields.setdefault("at", NOON)
    row: dict[str, Any] = {
        "prediction_id": str(ULID.from_datetime(at)),
        "version": "1",
        "label": "PROD",
        "role": "base",
        "surface": "native",
        "pod": "pod-1",
        "status": "200",
        "outcome": "ok",
        "attempts": 1,
        "duration_s": 0.01,
        "request_bytes": 10,
        "response_bytes": 20,
        "rate": 1.0,
        "bodies": "off",
    }
    if answer is not None:
        row |= {"bodies": "kept", "output": json.dumps(answer).encode(), "output_type": "application/json"}
    row |= fields
    for name in ("input", "output"):
        if row.get(name) is not None and not isinstance(row[name], bytes):
            row[name] = json.dumps(row[name]).encode()
            row.setdefault(f"{name}_type", "application/json")
    return row


def feedback(truth: Any = None, **fields: Any) -> dict[str, Any]:
    """Return a row of feedback; name a prediction, a request or a group."""
    at: datetime = fields.setdefault("at", NOON)
    row = {"feedback_id": str(ULID.from_datetime(at)), "received_at": at, **fields}
    return row if truth is None else {**row, "truth": json.dumps(truth)}


def write_observations(
    store: ObjectStore, model: str, rows: Iterable[Mapping[str, Any]], *, gateway: str = "gateway-1"
) -> list[str]:
    """Write rows as one file for each hour in which predictions ended, and return the files' keys."""
    return _by_hour(store, observations_prefix(model), schema.OBSERVATIONS, rows, "at", gateway)


def write_feedback(store: ObjectStore, rows: Iterable[Mapping[str, Any]], *, gateway: str = "gateway-1") -> list[str]:
    """Write rows as one file for each hour in which they came, and return the files' keys."""
    ordered = sorted(rows, key=lambda row: row.get("prediction_id") or "")
    return _by_hour(store, FEEDBACK, schema.FEEDBACK, ordered, "received_at", gateway)


def write_merged(store: ObjectStore, keys: Sequence[str]) -> str:
    """Write one file that stands for others of one partition, and return its key; the others stay."""
    folder = keys[0].rpartition("/")[0]
    table = pa.concat_tables(pq.read_table(io.BytesIO(store.get(key).data)) for key in keys)
    names = json.dumps([key.rpartition("/")[2] for key in keys]).encode()
    key = f"{folder}/{MERGED}{ULID()}.parquet"
    store.create(key, _parquet(table.replace_schema_metadata({**(table.schema.metadata or {}), REPLACES: names})))
    return key


def _by_hour(
    store: ObjectStore, prefix: str, columns: pa.Schema, rows: Iterable[Mapping[str, Any]], time: str, gateway: str
) -> list[str]:
    hours = defaultdict(list)
    for row in rows:
        hours[partition(row[time])].append(dict(row))
    keys = []
    for hour, found in sorted(hours.items()):
        keys.append(f"{prefix}{hour}{gateway}-{ULID()}.parquet")
        store.create(keys[-1], _parquet(pa.Table.from_pylist(found, schema=columns)))
    return keys


def _parquet(table: pa.Table) -> bytes:
    written = io.BytesIO()
    pq.write_table(table, written, compression="zstd")
    return written.getvalue()
