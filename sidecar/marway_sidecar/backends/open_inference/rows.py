"""Between the rows of callers and requests of the protocol: those that are such go as they came, others as tensors."""

from __future__ import annotations

import json
import math
from typing import Any, Final, NamedTuple

from marway.errors import InvalidRequest, ModelError
from marway.records import TensorSpec
from marway.wire.envelope import Answer, Row, mime_type
from marway.wire.headers import JSON_NONFINITE
from marway_http.tensors.plain_rows import plain_answer, tensors_of_row, value_of_outputs
from marway_http.tensors.rows import JSON, OCTETS
from marway_http.tensors.v2_bodies import may_be_request, tensor_request, tensors_of_response
from marway_http.tensors.v2_to_message import header_length_of
from marway_http.tensors.v2_to_rest import RestBody
from marway_sidecar.backends.base import ServedModel, StackedAnswer
from marway_sidecar.backends.open_inference.wire import Body, Known
from marway_sidecar.errors import about

__all__ = ["Asked", "answer_of", "asked", "described", "piece_of"]

_LENGTH: Final = "inference-header-content-length"


class Asked(NamedTuple):
    """What a row asks.

    Attributes:
        request: As it goes to the server.
        plain: Whether it was made of a row that is no request of the protocol; then its answer is a plain value.
        alone: Whether it was made a batch of one.
        null: Whether numbers that JSON has not become null in a plain value.
    """

    request: Body
    plain: bool = False
    alone: bool = False
    null: bool = False


def asked(known: Known, row: Row) -> Asked:
    """Return what a row asks of a version.

    Raises:
        InvalidRequest: It cannot be made what the version takes, or asks for more than a prediction.
        ModelError: It asks for an explanation, which these servers have not.
    """
    model = known.model
    if row.explains:
        message = f"{model.name} {model.version} has no explanations: its server only predicts"
        raise about(model, ModelError(message, status=501))
    if row.headers.get("url_path"):
        message = "means nothing to its server: leave out what follows the version in the path"
        raise about(model, InvalidRequest(f"{row.headers['url_path']!r} {message}"))
    if row.is_raw and (request := _request(row)) is not None:
        return Asked(request)
    try:
        plain = tensors_of_row(row, known.signature.inputs)
    except InvalidRequest as exc:
        raise about(model, exc) from exc.__cause__
    null = row.headers.get(JSON_NONFINITE) == "null"
    return Asked(Body(*tensor_request(plain.tensors)), True, plain.alone, null)


def answer_of(known: Known, what: Asked, response: RestBody) -> Answer:
    """Return the answer to a row."""
    answer = _answer_of(known, what, response)
    if response.rows is None:
        return answer
    said = (answer.status, answer.body, answer.kind, answer.content_type, answer.headers, answer.measured)
    return StackedAnswer(*said, batch_rows=response.rows)


def _answer_of(known: Known, what: Asked, response: RestBody) -> Answer:
    if what.plain:
        return _plain(known, what, response)
    if response.header_length is None:
        return Answer(200, response.body, "json", JSON)
    return Answer(200, response.body, "bytes", OCTETS, {_LENGTH: str(response.header_length)})


def piece_of(known: Known, what: Asked, piece: bytes) -> Answer:
    """Return a piece of an answer: of a plain row its value, JSON with a newline; else the response as it came.

    Raises:
        ModelError: It is an error, and its row is a plain one, whose answer ends there.
    """
    if not what.plain:
        return Answer(200, piece, "bytes", JSON)
    text, newline, _ = piece.partition(b"\n")
    if text.startswith(b'{"error":'):
        raise about(known.model, ModelError(json.loads(text)["error"]))
    answer = _plain(known, what, RestBody(piece, len(text) + len(newline)))
    if answer.kind != "json":
        return answer
    return Answer(200, answer.body + b"\n", "json", answer.content_type)


def described(known: Known) -> Answer:
    """Return a version's metadata in the protocol's form, under the names that its callers know."""
    document = {
        "name": known.model.name,
        "versions": [known.model.version],
        "platform": known.platform,
        "inputs": [_spec(each) for each in known.signature.inputs],
        "outputs": [_spec(each) for each in known.signature.outputs],
    }
    return Answer(200, json.dumps(document).encode(), "json", JSON)


def _request(row: Row) -> Body | None:
    """Return a row as the request of the protocol that it is; None when it is none."""
    (part,) = row.parts
    body, said = bytes(part.value), row.headers.get(_LENGTH)
    if said is not None:
        length = header_length_of(said, body)
        return Body(body, None if length == len(body) else length)
    if mime_type(part.content_type).lower() != JSON or not may_be_request(body):
        return None
    return Body(body, None)


def _plain(known: Known, what: Asked, response: RestBody) -> Answer:
    def to_json(value: Any) -> bytes:
        try:
            return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except ValueError:
            if not what.null:
                raise _nonfinite(known.model) from None
            return json.dumps(_finite(value), ensure_ascii=False).encode()

    return plain_answer(
        value_of_outputs(tensors_of_response(response.body, response.header_length), alone=what.alone), to_json
    )


def _nonfinite(model: ServedModel) -> ModelError:
    message = (
        f"{model.name} {model.version} answered with a number that is not finite, which JSON has not: ask for binary "
        "outputs, or have it become null (the serving setting nonfinite)"
    )
    return about(model, ModelError(message))


def _finite(value: Any) -> Any:
    if isinstance(value, list):
        return [_finite(each) for each in value]
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _spec(spec: TensorSpec) -> dict[str, object]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
