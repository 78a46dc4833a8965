"""Requests for versions whose server takes tensors itself: they go to the pod as they came, as its answers come back.

Which parameters, datatypes and shapes there are is the server's to say, so nothing is read here but two things. A
request names no shared memory: a region of the server's belongs to programs on its own machine, and nobody who asks
from outside may have it read or written. And the requests of a sequence go to one pod, whose server keeps its state.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from starlette.types import Send

from marway.errors import InvalidRequest, Unimplemented
from marway.graphs import takes_tensors
from marway.records import VersionRecord
from marway.refs import TENSOR_BACKENDS
from marway.wire.headers import EXPLAIN
from marway_gateway.gateway import Gateway
from marway_gateway.predict.call import PredictCall
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.surfaces.answers import stream_answer
from marway_gateway.surfaces.row_calls import RowRoute, Sent
from marway_http.tensors.rows import JSON, OCTETS
from marway_http.tensors.v2_to_message import HEADER_LENGTH, header_length_of

__all__ = ["InferRoute", "check_passed", "passes"]

_SHARED_MEMORY: Final = "shared_memory_"
_SEQUENCE: Final = "sequence_id"
_LOOKED_AT: Final = (_SHARED_MEMORY.encode(), _SEQUENCE.encode(), b"\\u00")
"""What makes the JSON of a request worth reading; the last is how it can spell a plain letter otherwise."""


def passes(record: VersionRecord) -> bool:
    """Return whether requests of tensors go to a version's server, or through a graph, as they came."""
    return record.backend in TENSOR_BACKENDS or takes_tensors(record)


class InferRoute(RowRoute):
    """Answers inference requests: rows of them for handlers, all of them at once for servers that take tensors."""

    async def answer(
        self, gateway: Gateway, call: PredictCall, cancel_scope: CancelScope, header_length: str | None, send: Send
    ) -> Sent | None:
        """Return what answers a call; None where it was sent already, piece by piece.

        Raises:
            InvalidRequest: The header length is none that the body has, or the request names shared memory.
            Unimplemented: The server was to explain.
            MarwayError: As `RowRoute.answer`.
        """
        cancel_scope.step = "its model was not found yet"
        record = (await gateway.predictor.resolve(call)).record
        if not passes(record):
            return await super().answer(gateway, call, cancel_scope, header_length, send)
        if EXPLAIN in call.headers:
            raise Unimplemented(
                f"{record.name} {record.version} is served by {record.backend}, which has no explanations: POST "
                "…/infer",
                model=record.name,
                version=record.version,
            )
        cancel_scope.step = "its body had not come whole"
        body = await call.whole_body()
        length = header_length_of(header_length, body)
        text = body if length is None else body[:length]
        call.sequence = await gateway.converters.run(len(text), check_passed, text)
        # `curl -d` says that it sends a form; and the length tells the pod that it is a request of this protocol.
        said = {"content-type": JSON if length is None else OCTETS, HEADER_LENGTH: str(len(text))}
        call.headers = {**call.headers, **said}
        cancel_scope.step = None
        answer = await gateway.predictor.predict(call)
        if answer.reply.data is None:
            await stream_answer(answer, cancel_scope, send)
            return None
        return answer.reply.status, answer.reply.header_block, answer.reply.data


def check_passed(text: bytes) -> str | None:
    """Return which sequence a request, of which this is the JSON, belongs to; None when to none.

    Raises:
        InvalidRequest: It names shared memory.
    """
    if not any(each in text for each in _LOOKED_AT):
        return None  # as nearly always
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None  # the server says what is wrong with it
    if not isinstance(document, dict):
        return None
    for where, name in _parameters(document):
        if name.startswith(_SHARED_MEMORY):
            raise InvalidRequest(
                f"{where} has the parameter {name}: that extension is not there; send the data in the request"
            )
    own = document.get("parameters")
    sequence = own.get(_SEQUENCE) if isinstance(own, dict) else None
    return str(sequence) if sequence else None  # 0 and "" stand for none


def _parameters(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield where a parameter of an input or output is, and its name."""
    for kind in ("inputs", "outputs"):
        tensors = document.get(kind)
        for index, each in enumerate(tensors if isinstance(tensors, list) else ()):
            parameters = each.get("parameters") if isinstance(each, dict) else None
            for name in parameters if isinstance(parameters, dict) else ():
                yield f"{kind.removesuffix('s')} {index}", name
