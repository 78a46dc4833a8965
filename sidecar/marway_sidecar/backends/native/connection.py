"""A connection to one worker: calls go out as frames, answers come back as they are ready (`marway.wire.native`).

An answer is told by a callback of the event loop to whoever waits for it: no call has a task of its own here. Small
frames come into one buffer; a large one is received where it stays, and each body is copied out of it once.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, Final, cast

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError, ModelError, RuntimeDown
from marway.wire.envelope import Answer, Row, decode_answers, row_pieces
from marway.wire.native import FRAME_BYTES_MAX, ModelState
from marway_http.frames import HEADER, Kind, frame_header
from marway_sidecar.backends.base import ServedModel, WorkerDied
from marway_sidecar.backends.native.waiting_calls import Call, CallInPieces

__all__ = ["WorkerConnection"]

_BUFFER_BYTES: Final = 256 * 1024
_JOINED_BYTES: Final = 64 * 1024
"""A request up to here is joined and written at once; the values of a larger one are written as they lie."""
_PIECES_MAX: Final = 16
"""So many pieces of an answer wait for who reads it; with more, nothing is read from the worker."""
_UNREAD_BYTES_MAX: Final = 16 * 1024 * 1024
"""So much of an answer waits for who reads it where other calls are under way in the worker, which must not wait for
that; with more, it is given up."""


class WorkerConnection(asyncio.BufferedProtocol):
    """The protocol of a connection to a worker of one version.

    Args:
        model: The version.
        state: What the runtime says of it: how long a call may take before the worker is ended, and whether a worker
            takes several calls at once.
        lost: Called when the worker ends the connection.
    """

    def __init__(self, model: ServedModel, state: ModelState, *, lost: Callable[[], None] = lambda: None) -> None:
        self._model = model
        self._title = f"{model.name} {model.version}"
        self._answer_within_s = state.answer_within_s
        self._shared = state.calls_per_worker > 1
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._calls: dict[int, Call] = {}
        self._numbers = itertools.count(1)
        self._buffer = memoryview(bytearray(_BUFFER_BYTES))
        self._large: memoryview | None = None
        self._filled = 0
        self._paused = False
        self._given_up: MarwayError | None = None
        self.greeted = asyncio.Event()
        """Set once the worker has said that it takes calls."""
        self._unanswered = asyncio.Event()
        self._unanswered.set()

    @property
    def open(self) -> bool:
        """Whether it is connected; nobody may have accepted it yet but the kernel, also of a worker that is ending."""
        return self._transport is not None and self._given_up is None

    @property
    def ready(self) -> bool:
        """Whether calls can be made."""
        return self.open and self.greeted.is_set()

    @property
    def calls(self) -> int:
        """How many calls wait for their answer."""
        return len(self._calls)

    async def call(self, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        """Make a call and return its answers; raises as `ModelServer.predict` does."""
        call = Call(self._loop)
        number = self._begin(call, rows)
        timer = self._loop.call_later(max(0.0, deadline.left_s()), self._late, number)
        try:
            answers = await call.done
        except asyncio.CancelledError:
            self._give_up(number)
            raise
        finally:
            timer.cancel()
        if len(answers) != len(rows):
            raise MarwayError(f"{self._title} gave {len(answers)} answers to {len(rows)} rows")
        return answers

    async def stream(self, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Make a call whose answer comes in pieces, and yield them; raises as `ModelServer.predict_stream` does."""
        call = CallInPieces(self._loop)
        number = self._begin(call, [row])
        timer = self._loop.call_later(max(0.0, deadline.left_s()), self._late, number)
        try:
            last = False
            while not last:
                answers, last = await call.take()
                if not call.came:
                    self._resume()
                for piece in answers:
                    yield piece
                    if piece.kind == "error":
                        return
        finally:
            timer.cancel()
            self._give_up(number)
            self._resume()

    def close(self, error: MarwayError) -> None:
        """Close it; calls that were not answered fail with ``error``."""
        self._given_up = error
        if self._transport is not None:
            self._transport.abort()
        self._fail(error)

    async def answered(self) -> None:
        """Return once no call waits for an answer."""
        await self._unanswered.wait()

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(self._given_up)
        if self._given_up is None:
            self._lost()

    def get_buffer(self, sizehint: int) -> memoryview:
        return (self._buffer if self._large is None else self._large)[self._filled :]

    def buffer_updated(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._large is not None:
            if self._filled == len(self._large):
                frame, self._large, self._filled = self._large, None, 0
                self._take(frame)
            return
        start, come, buffer = 0, self._filled, self._buffer
        while come - start >= HEADER.size:
            end = start + HEADER.size + HEADER.unpack_from(buffer, start)[0]
            if end > come:
                if end - start > len(buffer):
                    self._large = memoryview(bytearray(end - start))
                    self._large[: come - start] = buffer[start:come]
                    self._filled = come - start
                    return
                break
            self._take(buffer[start:end])
            start = end
        if start:
            buffer[: come - start] = bytes(buffer[start:come])
            self._filled = come - start

    def _take(self, frame: memoryview) -> None:
        """Take in a whole frame."""
        _, number, _, _, kind = HEADER.unpack_from(frame)
        call = self._calls.get(number)
        if call is None:
            if kind == Kind.WINDOW_UPDATE:
                self.greeted.set()
            return  # else nobody waits for it any more
        body = frame[HEADER.size :]
        try:
            answers = decode_answers(bytes(body) if len(body) < _BUFFER_BYTES else cast("bytes", _Slices(body)))
        except ValueError as exc:
            self.close(MarwayError(f"a worker of {self._title} answered with what is no answer: {exc}"))
            return
        if kind == Kind.ANSWER:
            self._forget(number)
        call.put(answers, last=kind == Kind.ANSWER)
        if isinstance(call, CallInPieces) and len(call.came) > _PIECES_MAX:
            self._hold_up(number, call)

    def _hold_up(self, number: int, call: CallInPieces) -> None:
        """Have no more pieces come than are read. Others wait behind them only where there are none."""
        if not self._shared:
            if self._transport is not None and not self._paused:
                self._paused = True
                self._transport.pause_reading()
        elif call.waiting_bytes > _UNREAD_BYTES_MAX:
            self._give_up(number)
            message = f"the answer of {self._title} was given up: its caller does not read it"
            call.fail(ModelError(message, model=self._model.name, version=self._model.version))

    def _begin(self, call: Call, rows: Sequence[Row]) -> int:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise RuntimeDown("the worker's connection was closed as the call was made")
        pieces = row_pieces(rows)
        size = sum(map(len, pieces))
        if size > FRAME_BYTES_MAX:
            raise BodyTooLarge("the request is larger than a worker takes: send less at once")
        number = next(self._numbers) & 0xFFFFFFFF
        self._calls[number] = call
        self._unanswered.clear()
        header = frame_header(Kind.REQUEST, number, body=size)
        if size <= _JOINED_BYTES:
            transport.write(b"".join((header, *pieces)))
        else:
            transport.writelines((header, *pieces))
        return number

    def _late(self, number: int) -> None:
        call = self._calls.get(number)
        if call is not None:
            self._give_up(number)
            message = f"{self._title} did not answer within the deadline"
            call.fail(DeadlineExceeded(message, model=self._model.name, version=self._model.version))

    def _give_up(self, number: int) -> None:
        """Have a call that has not begun not made; what comes of one that has is dropped."""
        if number in self._calls:
            self._forget(number)
            if self._transport is not None:
                self._transport.write(frame_header(Kind.CANCEL, number))

    def _forget(self, number: int) -> None:
        del self._calls[number]
        if not self._calls:
            self._unanswered.set()

    def _fail(self, error: MarwayError | None) -> None:
        """Tell all calls that no answer will come; without ``error``, because the worker has ended."""
        calls, self._calls = list(self._calls.values()), {}
        self._unanswered.set()
        for call in calls:
            call.fail(error or self._died(self._loop.time() - call.began))

    def _died(self, after_s: float) -> MarwayError:
        model = self._model
        if after_s >= self._answer_within_s:
            message = f"{self._title} did not answer in its time, {self._answer_within_s:g} s: its worker was ended"
            return DeadlineExceeded(message, model=model.name, version=model.version)
        message = f"the worker of {self._title} died during the call"
        return WorkerDied(message, model=model.name, version=model.version)

    def _resume(self) -> None:
        if self._paused and self._transport is not None:
            self._transport.resume_reading()
        self._paused = False


class _Slices:
    """A received envelope as `decode_answers` reads it: each slice is bytes of its own."""

    def __init__(self, body: memoryview) -> None:
        self._body = body

    def __len__(self) -> int:
        return len(self._body)

    def __getitem__(self, part: slice) -> Any:
        return bytes(self._body[part])
