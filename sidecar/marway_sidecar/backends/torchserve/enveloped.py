"""Predictions by workers that run Marway's bootstrap: rows in an envelope there, answers in an envelope back.

Small envelopes go over gRPC. Large ones go over REST, whose client sends the values from where they are, and which
TorchServe receives with fewer copies; the worker finds the same envelope in either
(`marway_runtime.worker.field_reader`).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Final

import httpx

from marway.deadline import Deadline
from marway.errors import MarwayError, ModelError
from marway.wire import envelope
from marway.wire.envelope import Answer, Bytes, Row
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.torchserve.calls import Calls, time_left
from marway_sidecar.backends.torchserve.classify import classify_rest
from marway_sidecar.backends.torchserve.messages import encode_request

__all__ = ["EnvelopedCalls"]

_REST_FROM_BYTES: Final = 1024 * 1024
"""Size of an envelope from which REST is the cheaper way; below it a call of httpx costs more than it saves."""
_JOINED_BYTES: Final = 64 * 1024
"""Values up to here are copied to stand beside what comes before them."""


class EnvelopedCalls(Calls):
    """Predictions with envelopes."""

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Return the answers to ``rows``, in their order; raises as `ModelServer.predict` does."""
        timeout_s = time_left(model, deadline)
        pieces = envelope.row_pieces(rows)
        size = sum(map(len, pieces))
        if size >= _REST_FROM_BYTES:
            answers = _answers(model, await self._as_body(model, pieces, size, timeout_s))
        else:
            answers = _answers(model, await self.over_grpc(model, _request(model, pieces), timeout_s))
        if len(answers) != len(rows):
            raise MarwayError(f"{model.name} {model.version} gave {len(answers)} answers to {len(rows)} rows")
        return answers

    async def predict_stream(self, model: ServedModel, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to ``row``; raises as `ModelServer.predict_stream` does."""
        timeout_s = time_left(model, deadline)
        request = _request(model, envelope.row_pieces([replace(row, stream=True)]))
        async with aclosing(self.stream_over_grpc(model, request, timeout_s)) as predictions:
            async for prediction in predictions:
                for answer in _answers(model, prediction):
                    yield answer
                    if answer.kind == "error":
                        return

    async def _as_body(self, model: ServedModel, pieces: Sequence[Bytes], size: int, timeout_s: float) -> bytes:
        headers = {"content-type": envelope.ROWS_CONTENT_TYPE, "content-length": str(size)}
        content = _Pieces(pieces)
        try:
            response = await self.over_rest(model, timeout_s, headers=headers, content=content)
        finally:
            content.drop()
        if response.status_code == httpx.codes.OK:
            return response.content
        error = classify_rest(response.status_code, response.content, model)
        raise error or MarwayError(f"TorchServe answered with status {response.status_code}")


class _Pieces:
    """The pieces of an envelope as httpx takes a body, which may be sent again."""

    def __init__(self, pieces: Sequence[Bytes]) -> None:
        self._chunks: list[Bytes] = []
        small: list[Bytes] = []
        for piece in pieces:
            if len(piece) <= _JOINED_BYTES:
                small.append(piece)
                continue
            self._chunks += (b"".join(small), piece)
            small = []
        self._chunks.append(b"".join(small))

    def drop(self) -> None:
        """Let go of them. httpx leaves its request in a cycle of objects, which would hold them until it is found."""
        self._chunks = []

    async def __aiter__(self) -> AsyncIterator[Bytes]:
        for at in range(len(self._chunks)):
            yield self._chunks[at]


def _request(model: ServedModel, pieces: Sequence[Bytes]) -> bytes:
    return encode_request(model.server_name, model.version, envelope.KEY, pieces)


def _answers(model: ServedModel, prediction: bytes) -> list[Answer]:
    try:
        return envelope.decode_answers(prediction)
    except ValueError as exc:
        # An archive with its own Python (`runtime`, torchrun) runs without our bootstrap.
        raise ModelError(
            f"{model.name} {model.version} answered without Marway's worker bootstrap: it has a runtime of its own",
            model=model.name,
            version=model.version,
        ) from exc
