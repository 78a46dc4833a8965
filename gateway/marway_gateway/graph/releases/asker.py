"""Has the gateway itself ask a version, for proofs, comparisons and contracts: no caller waits for the answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from marway.answers.contracts import answer_from_body
from marway.answers.golden import ExampleInput, GoldenAnswer, Kind
from marway.deadline import Deadline
from marway.errors import ArchiveCorrupt, DeadlineExceeded, LoadFailed, MarwayError, ModelError, Unavailable, clip
from marway.graphs import takes_tensors
from marway.resolve.resolved import Resolved
from marway.wire.problems import status_of
from marway.wire.request import RequestIds
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.predict.cancel_scope import CancelScope
from marway_http.tensors.v2_to_message import HEADER_LENGTH

__all__ = ["Asked", "Asker", "Asks"]

_ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
_LINE_MAX: Final = 300


class Asks(Protocol):
    """What makes predict calls: `marway_gateway.predict.pipeline.Predictor`."""

    def scope(self, call: PredictCall) -> CancelScope:
        """Return what ends a call at its deadline."""

    async def predict(self, call: PredictCall) -> Answer:
        """Return a model's answer."""


class Asked(NamedTuple):
    """An answer, and how long it took in seconds."""

    answer: GoldenAnswer
    seconds: float


class Asker:
    """Asks versions, graphs among them, as a caller would be answered who says a version.

    Nobody's side of a rollout has to do with it, nothing of it is kept as a prediction, and no cache answers.

    Args:
        predictor: Gives what makes predict calls.
    """

    def __init__(self, predictor: Callable[[], Asks]) -> None:
        self._predictor = predictor

    async def ask(self, version: Resolved, example: ExampleInput, *, ids: str, deadline: Deadline) -> Asked:
        """Return what a version answers to an input; what it fails at, or takes too long for, is of kind `error`.

        Args:
            version: Which.
            example: What it is given.
            ids: The request's id, and that of all requests of a graph's nodes.
            deadline: Of what the answer is for; how long one call may take, the version's serving settings say.

        Raises:
            LoadFailed, ArchiveCorrupt: It, or what a node of it asks, cannot be loaded.
            Unavailable, DeadlineExceeded: Nobody could answer, or not before ``deadline``, which says nothing of the
                version.
        """
        limit_s, left_s = version.serving.predict_timeout_s, deadline.left_s()
        if left_s <= 0:
            raise DeadlineExceeded(
                f"there was no time left to ask {version.record.name} {version.record.version}",
                model=version.record.name,
                version=version.record.version,
            )
        call = self._call(version, example, ids, Deadline.after(min(limit_s, left_s)))
        began = time.monotonic()
        try:
            answer = await self._answer(call)
        except (Unavailable, LoadFailed, ArchiveCorrupt):
            raise
        except DeadlineExceeded as exc:
            if deadline.left_s() <= 0:
                raise
            answer = _failed(504, f"no answer within {limit_s:g} s: {exc.message}")
        except MarwayError as exc:
            answer = _failed(status_of(exc), exc.message)
        return Asked(answer, time.monotonic() - began)

    async def _answer(self, call: PredictCall) -> GoldenAnswer:
        predictor = self._predictor()
        with predictor.scope(call):
            answer = await predictor.predict(call)
            reply = answer.reply
            if answer.in_pieces:
                body = await _last_piece(answer)
            else:
                too_large = f"the answer has more than {_ANSWER_BYTES_MAX} bytes"
                body = await answer.whole(max_bytes=_ANSWER_BYTES_MAX, too_large=too_large)
        named = next((value.decode("latin-1") for name, value in reply.headers if name == b"content-type"), None)
        return await asyncio.to_thread(answer_from_body, body, named, status=reply.status)

    def _call(self, version: Resolved, example: ExampleInput, ids: str, deadline: Deadline) -> PredictCall:
        record, data = version.record, example.data
        request_ids = RequestIds(ids)
        headers = request_ids.headers()
        if example.content_type is not None:
            headers["content-type"] = example.content_type
        if takes_tensors(record):
            headers[HEADER_LENGTH] = str(len(data))
        return PredictCall(
            name=record.name,
            selector=record.version,
            headers=headers,
            deadline=deadline,
            info=RequestInfo(method="POST", path="", ids=request_ids),
            body=RequestBody.opened(data, max_bytes=len(data)),
            fresh=True,
            resolved=version,
            divides=False,
        )


async def _last_piece(answer: Answer) -> bytes:
    """Return the last piece of a streamed answer: it is what the handler returned.

    Raises:
        ModelError: There is none.
    """
    last = None
    try:
        async for piece in answer.pieces(max_bytes=_ANSWER_BYTES_MAX):
            last = piece
    finally:
        answer.close()
    if last is None:
        raise ModelError("its handler gave no answer")
    return last


def _failed(status: int, message: str) -> GoldenAnswer:
    kind: Kind = "error"
    return GoldenAnswer(status=status, kind=kind, value=clip(message, _LINE_MAX))
