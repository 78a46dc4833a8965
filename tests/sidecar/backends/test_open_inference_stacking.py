"""Requests that wait for a server go to it together, and what comes of each is its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, RuntimeDown
from marway_http.proto import open_inference_pb2 as pb
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.open_inference.stacking import StackedCalls
from marway_sidecar.backends.open_inference.wire import Configured, Known

MODEL = ServedModel("mv_1", "m", "1.0", Path("m.bundle"), 1, 10.0, 10.0, batch_rows=8)


class Server:
    """A server that gives back what it takes, once it may; it notes the rows of each call."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.cancelled = 0
        self.may = asyncio.Event()
        self.answer: Callable[[pb.ModelInferRequest], bytes] = echoed

    async def __call__(self, message: bytes, timeout_s: float) -> bytes:
        request = pb.ModelInferRequest.FromString(message)
        self.calls.append(request.inputs[0].shape[0])
        try:
            await self.may.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.answer(request)


def echoed(request: pb.ModelInferRequest) -> bytes:
    response = pb.ModelInferResponse(raw_output_contents=request.raw_input_contents)
    response.outputs.add(name="y", datatype="UINT8", shape=request.inputs[0].shape)
    return response.SerializeToString()


def failing(code: grpc.StatusCode, *, above: int) -> Callable[[pb.ModelInferRequest], bytes]:
    """Return what fails with a status where there are more rows than so many, or one of them is 66."""

    def answer(request: pb.ModelInferRequest) -> bytes:
        if request.inputs[0].shape[0] > above or b"\x42" in request.raw_input_contents[0]:
            raise grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details="no")
        return echoed(request)

    return answer


def message(number: int, *, name: str = "x") -> bytes:
    request = pb.ModelInferRequest(model_name="mv_1", raw_input_contents=[bytes([number])])
    request.inputs.add(name=name, datatype="UINT8", shape=[1, 1])
    return request.SerializeToString()


def told(response: bytes) -> int:
    (section,) = pb.ModelInferResponse.FromString(response).raw_output_contents
    return section[0]


def calls_of(server: Server, model: ServedModel = MODEL) -> StackedCalls:
    return StackedCalls(Known(model, "mv_1", configured=Configured(rows_max=4)), server)


async def begun(
    calls: StackedCalls, *messages: bytes, within_s: float = 60.0, rows: dict[int, int | None] | None = None
) -> list[asyncio.Task[bytes]]:
    """Begin a call of each message; how many rows the call had that answered one is told by its number."""

    async def infer(message: bytes) -> bytes:
        response, together = await calls.infer(message, Deadline.after(within_s))
        if rows is not None:
            rows[told(response)] = together
        return response

    tasks = [asyncio.create_task(infer(each)) for each in messages]
    for _ in range(5):
        await asyncio.sleep(0)
    return tasks


@pytest.fixture
async def server() -> Server:
    return Server()


async def test_what_waits_goes_together(server: Server) -> None:
    """Two calls are made at once; what comes meanwhile is a call of its kind, of as many rows as there may be."""
    calls, rows = calls_of(server), dict[int, int | None]()
    sent = [*(message(number) for number in range(7)), message(7, name="other"), message(8)]
    tasks = await begun(calls, *sent, rows=rows)
    assert server.calls == [1, 1]
    server.may.set()
    assert [told(each) for each in await asyncio.gather(*tasks)] == list(range(9))
    assert sorted(server.calls) == [1, 1, 1, 2, 4]
    assert [rows[number] for number in range(9)] == [1, 1, 4, 4, 4, 4, 2, 1, 2]


@pytest.mark.parametrize("code", [grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.INTERNAL])
async def test_one_that_fails_fails_alone(server: Server, code: grpc.StatusCode) -> None:
    """A call that fails as a whole is made again, for each request by itself."""
    calls, server.answer = calls_of(server), failing(code, above=9)
    tasks = await begun(calls, *map(message, (1, 2, 3, 0x42, 5)))
    server.may.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [told(each) if isinstance(each, bytes) else type(each).__name__ for each in answers] == [
        1, 2, 3, "AioRpcError", 5,
    ]  # fmt: skip
    assert server.calls == [1, 1, 3, 1, 1, 1]


async def test_what_may_not_run_twice_does_not(server: Server) -> None:
    """Where rows may not run again, all that went together fail."""
    once = ServedModel("mv_1", "m", "1.0", Path("m"), 1, 10.0, 10.0, batch_rows=8, retry_rows=False)
    calls, server.answer = calls_of(server, once), failing(grpc.StatusCode.INTERNAL, above=1)
    tasks = await begun(calls, *map(message, range(4)))
    server.may.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, grpc.aio.AioRpcError) for each in answers] == [False, False, True, True]
    assert server.calls == [1, 1, 2]


async def test_a_server_that_is_gone_is_asked_once(server: Server) -> None:
    """A call that says nothing of its rows is not made again here."""
    calls, server.answer = calls_of(server), failing(grpc.StatusCode.UNAVAILABLE, above=0)
    tasks = await begun(calls, *map(message, range(4)))
    server.may.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(each, grpc.aio.AioRpcError) for each in answers)
    assert server.calls == [1, 1, 2]


async def test_a_model_without_rows_is_found_out(server: Server) -> None:
    """Outputs that have not the rows of the inputs are nobody's: each request goes by itself, then and from then on."""

    def summed(request: pb.ModelInferRequest) -> bytes:
        response = pb.ModelInferResponse(raw_output_contents=[bytes([sum(request.raw_input_contents[0])])])
        response.outputs.add(name="y", datatype="UINT8", shape=[1])
        return response.SerializeToString()

    calls, server.answer = calls_of(server), summed
    tasks = await begun(calls, *map(message, range(4)))
    server.may.set()
    assert [told(each) for each in await asyncio.gather(*tasks)] == [0, 1, 2, 3]
    assert server.calls == [1, 1, 2, 1, 1]
    tasks = await begun(calls, *map(message, range(4)))
    assert [told(each) for each in await asyncio.gather(*tasks)] == [0, 1, 2, 3]
    assert server.calls[5:] == [1, 1, 1, 1]


async def test_who_leaves_harms_nobody(server: Server) -> None:
    """Of those that wait one that left is not sent; a call ends when all its callers have left, and not before."""
    calls = calls_of(server)
    first, second, *rest = await begun(calls, *map(message, range(5)))
    rest[0].cancel()
    first.cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert (server.cancelled, server.calls) == (1, [1, 1, 2])
    rest[1].cancel()
    server.may.set()
    assert [told(each) for each in await asyncio.gather(second, rest[2])] == [1, 4]
    assert server.cancelled == 1


async def test_a_deadline_that_passes_while_it_waits(server: Server) -> None:
    """What has no time left when its turn comes is not sent."""
    calls = calls_of(server)
    await begun(calls, *map(message, range(2)))
    (late,) = await begun(calls, message(2), within_s=0.0)
    server.may.set()
    with pytest.raises(DeadlineExceeded):
        await late
    assert server.calls == [1, 1]


async def test_nothing_is_left_when_it_is_closed(server: Server) -> None:
    """Calls under way end, and what waits is told."""
    calls = calls_of(server)
    tasks = await begun(calls, *map(message, range(4)))
    await calls.aclose()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in answers] == [True, True, False, False]
    assert all(isinstance(each, RuntimeDown) for each in answers[2:])
    assert server.cancelled == 2
