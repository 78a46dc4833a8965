"""Requests of one version that wait are given to the server as one, with the rows of all.

Few calls of a version are under way at once: as many as the server runs side by side, and one that it can begin as soon
as one of them ends. Nobody waits for others to come: what waits while these run goes together. Asking costs the server
and the pod more than a small model's work does, and so it is done once for many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import grpc

from marway.deadline import Deadline
from marway.errors import MarwayError, RuntimeDown
from marway_http.tensors.v2_stacking import RowsRequest, responses_of_stack, rows_of_request, stack_of_requests
from marway_sidecar.backends.open_inference.wire import Known

__all__ = ["StackedCalls"]

logger = logging.getLogger(__name__)

_REQUEST_BYTES_MAX: Final = 256 * 1024
"""A larger request goes by itself: copying it costs more than asking once saves."""
_NO_ROWS_FAULT: Final = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED}
)
"""Statuses of a call that says nothing of what was in it."""

Call = Callable[[bytes, float], Awaitable[bytes]]
"""Sends a `ModelInferRequest` and returns the response, within so many seconds."""


@dataclass(eq=False, slots=True)
class _Waiting:
    request: RowsRequest
    message: bytes
    deadline: Deadline
    response: asyncio.Future[bytes]
    call: asyncio.Task[None] | None = None
    rows: int = 0
    """Of the call that answered it."""
    beside: list[_Waiting] = field(default_factory=list)
    """Those of the same call, itself among them."""


class StackedCalls:
    """Calls of one version.

    Args:
        known: The version, which has rows (`Configured.rows_max`).
        call: Makes a call.
    """

    def __init__(self, known: Known, call: Call) -> None:
        self.known = known
        self._call = call
        self._free = known.configured.instances + 1
        self._rows_max = known.rows_max
        self._waiting: deque[_Waiting] = deque()
        self._calls: set[asyncio.Task[None]] = set()

    async def infer(self, message: bytes, deadline: Deadline) -> tuple[bytes, int | None]:
        """Return the response to a request, and the rows of the call that it came of where they are known.

        It raises as ``call`` does, and `DeadlineExceeded`.
        """
        request = rows_of_request(message) if len(message) <= _REQUEST_BYTES_MAX else None
        if request is None or request.rows >= self._rows_max:
            response = await self._call(message, deadline.time_left_s(model=self.known.model.name))
            return response, None if request is None else request.rows
        waiting = _Waiting(request, message, deadline, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._begin()
        try:
            return await waiting.response, waiting.rows
        except asyncio.CancelledError:
            waiting.response.cancel()
            if waiting.call is not None and all(each.response.done() for each in waiting.beside):
                waiting.call.cancel()
            raise

    async def aclose(self) -> None:
        """End the calls under way, and make none any more."""
        while self._waiting:
            _fail(self._waiting.popleft(), RuntimeDown("the model server was let go of before the call"))
        calls = list(self._calls)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)

    def _begin(self) -> None:
        while self._free and (together := self._next()):
            self._free -= 1
            call = asyncio.create_task(self._run(together), name=f"ask {self.known.called}")
            for each in together:
                each.call, each.beside = call, together
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)

    def _next(self) -> list[_Waiting]:
        """Take what has waited longest, and what may go with it; the others keep their order."""
        taken: list[_Waiting] = []
        left: deque[_Waiting] = deque()
        rows = 0
        while self._waiting and rows < self._rows_max:
            each = self._waiting.popleft()
            if each.response.done():  # its caller left
                continue
            if not taken or (taken[0].request.kind == each.request.kind and rows + each.request.rows <= self._rows_max):
                rows += each.request.rows
                taken.append(each)
            else:
                left.append(each)
        self._waiting.extendleft(reversed(left))
        return taken

    async def _run(self, together: Sequence[_Waiting]) -> None:
        """Make a call and free its place, however it ends."""
        try:
            if len(together) == 1 or not await self._stacked(together):
                await asyncio.gather(*(self._alone(each) for each in together))
        except BaseException as exc:
            for each in together:
                _fail(each, exc)
            if not isinstance(exc, Exception):
                raise
        finally:
            self._free += 1
            self._begin()

    async def _stacked(self, together: Sequence[_Waiting]) -> bool:
        """Make one call of several requests; return False when each has to go by itself."""
        model = self.known.model
        requests = [each.request for each in together]
        last = max((each.deadline for each in together), key=lambda deadline: deadline.at)
        try:
            answer = await self._call(stack_of_requests(requests), last.time_left_s(model=model.name))
        except grpc.aio.AioRpcError as exc:
            if exc.code() in _NO_ROWS_FAULT or not model.retry_rows:
                raise
            return False  # which of them made it fail, it does not say
        responses = responses_of_stack(answer, requests)
        if responses is None:
            if not model.retry_rows:
                raise MarwayError(f"{model.name} {model.version} gave no output for each row of its requests")
            logger.warning(
                "%s %s gives no output for each row, whatever its max_batch_size says: its requests go one by one",
                model.name, model.version,
            )  # fmt: skip
            self._rows_max = 1
            return False
        rows = sum(request.rows for request in requests)
        for each, response in zip(together, responses, strict=True):
            each.rows = rows
            if not each.response.done():
                each.response.set_result(response)
        return True

    async def _alone(self, each: _Waiting) -> None:
        if each.response.done():
            return
        each.rows = each.request.rows
        try:
            response = await self._call(each.message, each.deadline.time_left_s(model=self.known.model.name))
        except Exception as exc:
            _fail(each, exc)
        else:
            if not each.response.done():
                each.response.set_result(response)


def _fail(each: _Waiting, error: BaseException) -> None:
    if not each.response.done():
        each.response.set_exception(error)
