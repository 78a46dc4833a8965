"""A request of a tensor protocol as one envelope of rows, and the envelope of their answers as its answer.

Both directions are plain functions of what they are given, so that they can run in another process
(`marway_gateway.conversion`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from marway.errors import InvalidRequest, MarwayError
from marway.records import VersionRecord
from marway.resolve.resolver import Resolved
from marway.wire.envelope import PARTS_MAX, Row, decode_answers, encode_rows
from marway_gateway.proto import open_inference_pb2 as pb
from marway_gateway.tensors.outputs import outputs_of, values_of
from marway_gateway.tensors.rows import Rendered, rows_of
from marway_gateway.tensors.v1_examples import parse_examples, render_results
from marway_gateway.tensors.v1_instances import parse_instances, render_explanations, render_predictions
from marway_gateway.tensors.v2_json import HEADER_LENGTH, InferRequest, parse_infer, render_infer
from marway_gateway.tensors.v2_protobuf import parse_message, render_message

__all__ = [
    "Prepared",
    "ReadRequest",
    "Reading",
    "Rendered",
    "prepare",
    "read_classify",
    "read_explain",
    "read_infer",
    "read_message",
    "read_predict",
    "read_regress",
    "rendered",
]

Render = Callable[[list[Any]], Rendered]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request asks for.

    Attributes:
        rows: Its rows.
        render: Makes an answer of what the handler answers to each; it holds nothing of the request that is large.
        timeout_s: How long the caller waits, from when the request came, where the body says so.
    """

    rows: Sequence[Row]
    render: Render
    timeout_s: float | None = None


class ReadRequest(Protocol):
    """Reads a protocol's request."""

    def __call__(self, body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
        """Return what ``body`` asks for.

        Args:
            body: All of it.
            headers: The request's, names in lower case.
            version: The one that is asked.

        Raises:
            InvalidRequest: It is no request of the protocol, or none that the version takes.
        """


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request that can go to a pod.

    Attributes:
        envelope: Its rows.
        count: How many.
        render: Makes an answer of theirs.
        timeout_s: As `Reading` has it.
    """

    envelope: bytes
    count: int
    render: Render
    timeout_s: float | None


def prepare(read: ReadRequest, body: bytes, headers: Mapping[str, str], version: Resolved) -> Prepared:
    """Return the request that ``body`` holds, as ``read`` reads it.

    Raises:
        InvalidRequest: As ``read``; or its rows have more parts than a pod takes.
    """
    reading = read(body, headers, version)
    rows = reading.rows
    parts = sum(len(row.parts) for row in rows)
    if parts > PARTS_MAX:
        raise InvalidRequest(f"the request's rows have {parts} parts: send {PARTS_MAX} at most, in all rows together")
    return Prepared(encode_rows(rows), len(rows), reading.render, reading.timeout_s)


def rendered(render: Render, data: bytes, count: int, record: VersionRecord) -> Rendered:
    """Return the answer to a request of ``count`` rows, of the envelope of their answers.

    Raises:
        MarwayError: It is none, or not of so many answers.
        ModelError: The handler refused a row, or answered what the protocol cannot carry.
    """
    try:
        answers = decode_answers(data)
    except ValueError as exc:
        raise MarwayError(f"the pod's answers to the request's rows cannot be read: {exc}") from exc
    if len(answers) != count:
        raise MarwayError(f"the pod gave {len(answers)} answers to {count} rows")
    return render(values_of(answers, model=record.name, version=record.version))


def read_predict(body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
    """Read a predict request of v1."""
    request = parse_instances(body, version.record.signature)
    return Reading(request.rows, partial(render_predictions, replace(request, rows=()), version.record))


def read_classify(body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
    """Read a classify request of v1."""
    return Reading(parse_examples(body, version.record.signature), partial(render_results, "classify", version.record))


def read_regress(body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
    """Read a regress request of v1."""
    return Reading(parse_examples(body, version.record.signature), partial(render_results, "regress", version.record))


def read_explain(body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
    """Read a request of v1 for explanations: a predict request, answered otherwise."""
    return Reading(parse_instances(body, version.record.signature).rows, render_explanations)


def read_infer(body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
    """Read an inference request of Open Inference v2 over REST."""
    request = parse_infer(body, header_length=headers.get(HEADER_LENGTH), signature=version.record.signature)
    render = partial(_infer_answer, replace(request, inputs=()), version)
    return Reading(rows_of(request.inputs), render, request.timeout_s)


def read_message(body: bytes, headers: Mapping[str, str], version: Resolved) -> Reading:
    """Read one over gRPC: the bytes of a `ModelInferRequest`."""
    try:
        message = pb.ModelInferRequest.FromString(body)
    except DecodeError:
        raise InvalidRequest("the message cannot be parsed") from None
    request = parse_message(message, version.record.signature)
    render = partial(_infer_message, replace(request, inputs=()), version.record)
    return Reading(rows_of(request.inputs), render, request.timeout_s)


def _infer_answer(request: InferRequest, version: Resolved, values: list[Any]) -> Rendered:
    record = version.record
    return render_infer(outputs_of(values, record.signature), request, record, nonfinite=version.serving.nonfinite)


def _infer_message(request: InferRequest, record: VersionRecord, values: list[Any]) -> Rendered:
    return render_message(outputs_of(values, record.signature), request, record).SerializeToString(), []
