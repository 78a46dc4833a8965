"""The columns of observations and feedback. Readers ask for columns by name: later versions may add some."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

__all__ = ["CALLERS", "FEEDBACK", "OBSERVATIONS"]

CALLERS: Final = "role NOT IN ('shadow', 'batch')"
"""SQL of what callers asked: not copies of their requests, nor rows of jobs, replays among them."""

_NAME: Final = pa.dictionary(pa.int32(), pa.string())
_TIME: Final = pa.timestamp("us", tz="UTC")

OBSERVATIONS: Final = pa.schema(
    [
        pa.field("prediction_id", pa.string(), nullable=False),  # ULID, `X-Prediction-Id` of the answer
        pa.field("request_id", pa.string()),
        pa.field("group_id", pa.string()),
        pa.field("graph", pa.string()),  # prediction id of the graph that asked; null where a caller did
        pa.field("node", _NAME),  # by which of its nodes
        pa.field("at", _TIME, nullable=False),  # when the answer ended
        pa.field("version", _NAME, nullable=False),
        pa.field("label", _NAME),  # that led to the version; null where it was named
        pa.field("role", _NAME, nullable=False),  # base, candidate, shadow or batch
        pa.field("surface", _NAME, nullable=False),
        pa.field("client", _NAME),
        pa.field("pod", _NAME),  # the last that was asked; null where none was
        pa.field("status", _NAME),  # HTTP status or gRPC code, as the caller saw it
        pa.field("outcome", _NAME, nullable=False),
        pa.field("error", _NAME),  # code of the error that ended it
        pa.field("cache", _NAME),  # hit, miss or bypass; null where answers are not kept
        pa.field("attempts", pa.int32(), nullable=False),  # pods asked
        pa.field("duration_s", pa.float64(), nullable=False),
        pa.field("resolve_s", pa.float64()),
        pa.field("pod_s", pa.float64()),  # the last attempt, as the gateway saw it
        pa.field("queue_s", pa.float64()),  # in the pod, before a worker was free
        pa.field("model_s", pa.float64()),  # in the model server
        pa.field("batch_rows", pa.int32()),  # rows of the call of the model server that it was in
        pa.field("finite", pa.bool_()),  # false where the answer held a number that is not; null where nobody looked
        pa.field("request_bytes", pa.int64(), nullable=False),
        pa.field("response_bytes", pa.int64(), nullable=False),
        pa.field("prompt_tokens", pa.int64()),
        pa.field("completion_tokens", pa.int64()),
        pa.field("rate", pa.float32(), nullable=False),  # the part of predictions that was kept then
        pa.field("bodies", _NAME, nullable=False),  # kept, or why not: off, too_large, streamed, not_redactable, failed
        pa.field("input_type", _NAME),
        pa.field("input", pa.binary()),
        pa.field("output_type", _NAME),
        pa.field("output", pa.binary()),
    ]
)

FEEDBACK: Final = pa.schema(
    [
        pa.field("feedback_id", pa.string(), nullable=False),  # ULID, made by the gateway: tells copies of a row
        pa.field("at", _TIME, nullable=False),  # when it was true: the sender's `time`, else when it came
        pa.field("received_at", _TIME, nullable=False),
        pa.field("prediction_id", pa.string()),  # one of these three is given
        pa.field("request_id", pa.string()),
        pa.field("group_id", pa.string()),
        pa.field("since", _TIME),  # the window in which predictions of a group, or of a request id, are meant
        pa.field("until", _TIME),
        pa.field("truth", pa.string()),  # as JSON
        pa.field("correct", pa.bool_()),
        pa.field("score", pa.float64()),
        pa.field("source", _NAME),
        pa.field("client", _NAME),
    ]
)
