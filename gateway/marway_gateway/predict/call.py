"""One prediction that a caller asked for, and the model's own answer to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass

from marway.errors import DeadlineExceeded, MarwayError, Unavailable
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.transport.base import AttemptFailed, Reply
from marway_gateway.transport.response_headers import Headers
from marway_http.channel import HeaderBlock

__all__ = ["Answer", "PredictCall", "too_late"]


@dataclass(slots=True)
class PredictCall:
    """One prediction that a caller asked for.

    Attributes:
        name: Model name or id.
        selector: Version or label, or None.
        body: What the model is given.
        headers: What goes to the pod beside the deadline.
        deadline: When the caller gives up, by `time.monotonic`.
        timeout_s: How long that was when the request came, for messages.
        info: Filled in on the way.
        fresh: Whether the caller wants an answer that is made now, and not one that was given before.
    """

    name: str
    selector: str | None
    body: RequestBody
    headers: Mapping[str, str]
    deadline: float
    timeout_s: float
    info: RequestInfo
    fresh: bool = False


class Answer:
    """A model's own answer, passed on as it is.

    Attributes:
        status: HTTP status that the model chose.
        headers: Headers to pass on, lower case.
        data: The body, or None when it streams: then `chunks` gives it.
        content_length: Size of a streaming body in bytes, where it is known.
    """

    def __init__(self, reply: Reply, call: PredictCall) -> None:
        self.status = reply.status
        self.headers: Headers = reply.headers
        self.data = reply.data
        self.content_length = reply.content_length
        self._reply = reply
        self._call = call

    @property
    def lines(self) -> HeaderBlock:
        """``headers`` as they go out."""
        return self._reply.header_block

    @property
    def in_pieces(self) -> bool:
        """Whether the handler sends it in pieces, and not only a body too large to be held in memory."""
        return self.data is None and self.content_length is None

    @property
    def time_left_s(self) -> float:
        """Seconds until the call's deadline."""
        return self._call.deadline - time.monotonic()

    def chunks(self) -> AsyncIterator[bytes]:
        """Yield a streaming body as it comes, cut anywhere.

        Raises:
            DeadlineExceeded: The deadline passed before its end.
            Unavailable: The pod was lost before its end.
        """
        return self._in_time(self._reply.chunks())

    def pieces(self, *, max_bytes: int) -> AsyncIterator[bytes]:
        """Yield a streaming body in the pieces in which the handler sent it, each of ``max_bytes`` at most.

        Raises:
            DeadlineExceeded: The deadline passed before its end.
            Unavailable: The pod was lost before its end, or sent a larger piece.
        """
        return self._in_time(self._reply.pieces(max_bytes=max_bytes))

    async def whole(self, *, max_bytes: int, too_large: str) -> bytes:
        """Return all of the body.

        Args:
            max_bytes: The largest that is held in memory.
            too_large: The words for one that is larger.

        Raises:
            MarwayError: It is larger.
            DeadlineExceeded: The deadline passed before its end.
            Unavailable: The pod was lost before its end.
        """
        if self.data is not None:
            return self.data
        pieces: list[bytes] = []
        size = 0
        async for piece in self.chunks():
            size += len(piece)
            if size > max_bytes:
                raise MarwayError(too_large)
            pieces.append(piece)
        return b"".join(pieces)

    async def _in_time(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        while True:
            try:
                async with asyncio.timeout(self.time_left_s):
                    piece = await anext(pieces, b"")
            except TimeoutError as exc:
                raise too_late(self._call) from exc
            except AttemptFailed as exc:
                info = self._call.info
                raise Unavailable(
                    f"the answer broke off: pod {info.pod} {exc.why}; the model's log may say why",
                    model=info.model,
                    version=info.version,
                ) from exc
            if not piece:
                return
            yield piece

    def close(self) -> None:
        """Let go of the pod; what was not read is thrown away."""
        self._reply.close()


def too_late(call: PredictCall) -> DeadlineExceeded:
    """Return the error of a call whose deadline passed."""
    where = f"pod {call.info.pod} had not answered" if call.info.pod is not None else "it had not reached a pod"
    return DeadlineExceeded(
        f"the request's deadline of {call.timeout_s:g} s passed: {where}",
        model=call.info.model,
        version=call.info.version,
    )
