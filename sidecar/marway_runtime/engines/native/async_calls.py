"""The calls of a worker whose archive says `asyncCommunication`: a coroutine of the handler for each, all at once.

They run in one event loop, the one in which the handler was loaded, as in TorchServe's `AsyncService`. What TorchServe
lacks: a call that was given up is cancelled, one that takes too long fails alone, and so does one that raises.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from marway.wire.envelope import Answer, Bytes, Row, answer_pieces, read_rows
from marway_http.frames import HEADER, Kind, frame_header
from marway_runtime.engines.native.worker import ANSWER_BYTES_MAX, PULSE
from marway_runtime.worker.service import MarwayService, within

__all__ = ["AsyncCalls"]

logger = logging.getLogger(__name__)

_BEAT_MIN_S, _BEAT_MAX_S = 0.05, 1.0
_UNSENT_BYTES_MAX: Final = 64 * 1024 * 1024
"""So many bytes of answers wait to be taken by the sidecar; a handler that sends more pieces then is stopped."""


class AsyncCalls:
    """Takes calls from whoever connects, and runs all of them at once.

    Args:
        service: Has the handler, which is `async def`.
        pulse: The file of `PULSE`, which is there: a loop that stands still, because a call does not let others run, is
            seen by it.
        answer_within_s: How long a call may take until its answer or its next piece; then it is cancelled.
    """

    def __init__(self, service: MarwayService, pulse: Path, *, answer_within_s: float) -> None:
        self._service = service
        self._answer_within_s = answer_within_s
        self._under_way = 0
        with pulse.open("r+b") as file:
            self._pulse = mmap.mmap(file.fileno(), PULSE.size)

    async def serve(self, listener: socket.socket) -> None:
        """Serve who connects to ``listener``, until the process ends."""
        server = await asyncio.start_unix_server(self._serve, sock=listener)
        async with server:
            pause_s = min(_BEAT_MAX_S, max(_BEAT_MIN_S, self._answer_within_s / 20))
            while True:
                self._beat()
                await asyncio.sleep(pause_s)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(frame_header(Kind.WINDOW_UPDATE, 0))
        calls: dict[int, asyncio.Task[None]] = {}
        try:
            while True:
                size, number, _, _, kind = HEADER.unpack(await reader.readexactly(HEADER.size))
                body = await reader.readexactly(size)
                if kind == Kind.REQUEST and (rows := read_rows(_reading(body), size)):
                    task = calls[number] = asyncio.create_task(self._answer(writer, number, rows), name="call")
                    task.add_done_callback(_forgetting(calls, number))
                elif kind == Kind.CANCEL and (given_up := calls.get(number)) is not None:
                    given_up.cancel()
        except (asyncio.IncompleteReadError, OSError):
            pass  # its sidecar has gone
        except ValueError as exc:
            logger.error("What came is no call, and its connection is closed: %s", exc)
        finally:
            for task in list(calls.values()):
                task.cancel()
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, number: int, rows: Sequence[Row]) -> None:
        loop = asyncio.get_running_loop()
        self._under_way += 1
        self._beat()
        try:
            async with asyncio.timeout(self._answer_within_s) as limit:

                def send(piece: Answer) -> None:
                    if writer.transport.get_write_buffer_size() > _UNSENT_BYTES_MAX:
                        raise RuntimeError("nobody takes the pieces of the answer")
                    _send(writer, Kind.PART, number, [piece])
                    limit.reschedule(loop.time() + self._answer_within_s)

                answers = await self._service.answered_async(rows, send)
        except TimeoutError:
            message = f"the call took longer than {self._answer_within_s:g} s (responseTimeout) and was cancelled"
            answers = [Answer(504, message.encode(), "error")] * len(rows)
        finally:
            self._under_way -= 1
            self._beat()
        _send(writer, Kind.ANSWER, number, answers)

    def _beat(self) -> None:
        """Note that the loop runs; a worker without a call has no pulse."""
        PULSE.pack_into(self._pulse, 0, time.monotonic() if self._under_way else 0.0)


def _forgetting(calls: dict[int, asyncio.Task[None]], number: int) -> Callable[[object], None]:
    def forget(_: object) -> None:
        del calls[number]

    return forget


def _reading(body: bytes) -> Callable[[int], Bytes]:
    """Return what reads a frame's body piece by piece, each into a value of its own."""
    view, at = memoryview(body), 0

    def read(size: int) -> Bytes:
        nonlocal at
        at += size
        return bytearray(view[at - size : at])

    return read


def _send(writer: asyncio.StreamWriter, kind: int, number: int, answers: Sequence[Answer]) -> None:
    """Send answers; whoever has gone is not told."""
    if not writer.is_closing():
        pieces = answer_pieces(within(answers, ANSWER_BYTES_MAX))
        writer.writelines((frame_header(kind, number, body=sum(map(len, pieces))), *pieces))
