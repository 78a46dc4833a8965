"""The loop of a worker whose archive says `asyncCommunication`, in a thread of the test, driven by frames."""

from __future__ import annotations

import asyncio
import mmap
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marway_http.frames import Kind
from support.native_worker import Client, service_of, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open while it is imported
    from ts.handler_utils import utils

    from marway_runtime.engines.native.async_calls import AsyncCalls
    from marway_runtime.engines.native.worker import PULSE

# TorchServe leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*metrics.yaml:pytest.PytestUnraisableExceptionWarning")

ANSWER_WITHIN_S = 1.0


class Handler:
    """An `async def` handler that does what the text of a row says."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.given_up: list[str] = []
        self.contexts: list[Any] = []

    async def handle(self, data: list[dict[str, Any]], context: Any) -> Any:
        said = data[0]["data"]
        self.contexts.append(context)
        verb, _, rest = said.partition(" ")
        if verb == "open":
            self.gate.set()
        if verb == "wait":
            try:
                await self.gate.wait()
            except asyncio.CancelledError:
                self.given_up.append(said)
                raise
        if verb == "block":
            time.sleep(float(rest))
        if verb == "raise":
            raise ValueError("on purpose")
        if verb == "sleep":
            await asyncio.sleep(60)
        if verb == "pieces":
            for number in range(int(rest)):
                utils.send_intermediate_predict_response([f"p{number} "], context.request_ids, "ok", 200, context)
                await asyncio.sleep(0.3)
        if verb == "measure":
            context.metrics.add_counter("Asked", 2)
        context.set_response_header(0, "x-said", said)
        return [{"said": said, "id": context.get_request_id(0), "path": context.get_request_header(0, "url_path")}]


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def pulse(tmp_path: Path) -> Path:
    (tmp_path / "pulse").write_bytes(bytes(PULSE.size))
    return tmp_path / "pulse"


@pytest.fixture
def client(tmp_path: Path, handler: Handler, pulse: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    service = service_of(handler.handle, tmp_path, monkeypatch, config="asyncCommunication: true\n")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    loop = asyncio.new_event_loop()
    serving = loop.create_task(AsyncCalls(service, pulse, answer_within_s=ANSWER_WITHIN_S).serve(listener))

    def serve() -> None:
        with pytest.raises(asyncio.CancelledError):
            loop.run_until_complete(serving)
        loop.run_until_complete(asyncio.sleep(0.01))  # the connections see their end
        loop.close()

    thread = threading.Thread(target=serve)
    thread.start()
    client = Client(tmp_path / "s")
    yield client
    client.socket.close()
    wait_for(lambda: len(asyncio.all_tasks(loop)) <= 1)
    loop.call_soon_threadsafe(serving.cancel)
    thread.join(20)


def test_calls_are_under_way_at_once(client: Client) -> None:
    """A call that waits for a later one is answered, each with its own id, headers and context."""
    client.say(1, "wait", headers={"url_path": "v1/models"})
    client.say(2, "open")
    taken = {number: answer for _, number, (answer,) in (client.take_answers() for _ in range(2))}
    assert taken[1].body == b'{\n  "said": "wait",\n  "id": "r-1",\n  "path": "v1/models"\n}'
    assert {number: answer.headers["x-said"] for number, answer in taken.items()} == {1: "wait", 2: "open"}


def test_contexts_are_each_calls_own(client: Client, handler: Handler) -> None:
    """What a handler leaves in a context is not there in the next call, as in TorchServe."""
    for number in (1, 2):
        client.say(number, "x")
        client.take()
    first, second = handler.contexts
    assert first is not second
    assert first.request_ids == {0: "r-1"}


def test_one_that_raises_fails_alone(client: Client) -> None:
    """TorchServe fails all that are under way."""
    client.say(1, "wait")
    client.say(2, "raise")
    kind, number, (answer,) = client.take_answers()
    assert (kind, number, answer.status, answer.kind) == (Kind.ANSWER, 2, 500, "error")
    assert answer.body == b"ValueError: on purpose"
    client.say(3, "open")
    assert {client.take()[1] for _ in range(2)} == {1, 3}


def test_a_call_that_is_given_up_is_cancelled(client: Client, handler: Handler) -> None:
    """The handler is told by `CancelledError`, also when the sidecar has gone; nothing is sent."""
    other = Client(Path(client.socket.getpeername()))
    client.say(1, "wait 1")
    other.say(1, "wait 2")
    wait_for(lambda: len(handler.contexts) == 2)
    client.cancel(1)
    other.socket.close()
    wait_for(lambda: sorted(handler.given_up) == ["wait 1", "wait 2"])
    client.say(2, "x")
    assert client.take()[1] == 2


def test_one_that_takes_too_long_fails_alone(client: Client) -> None:
    """`responseTimeout` is the time until the answer or the next piece; whoever has others under way keeps them."""
    client.say(1, "sleep")
    client.say(2, "pieces 5", stream=True)
    taken = [client.take_answers() for _ in range(7)]
    ((answer,),) = [answers for _, number, answers in taken if number == 1]
    assert (answer.status, answer.kind) == (504, "error")
    assert b"longer than 1 s (responseTimeout)" in answer.body
    bodies = [(kind, answers[0].body) for kind, number, answers in taken if number == 2]
    assert bodies[:-1] == [(Kind.PART, b"p%d " % number) for number in range(5)]
    assert bodies[-1][0] == Kind.ANSWER


def test_a_loop_that_stands_still_is_seen(client: Client, handler: Handler, pulse: Path) -> None:
    """The pulse is now while calls are under way, old when one of them lets no other run, and 0 without any."""
    with pulse.open("rb") as file:
        seen: Any = mmap.mmap(file.fileno(), PULSE.size, access=mmap.ACCESS_READ)
    client.say(1, "wait")
    wait_for(lambda: PULSE.unpack(seen) != (0.0,))
    before = PULSE.unpack(seen)[0]
    wait_for(lambda: PULSE.unpack(seen)[0] > before)
    client.say(2, "block 0.4")
    wait_for(lambda: len(handler.contexts) == 2)
    since = PULSE.unpack(seen)[0]
    time.sleep(0.15)
    assert PULSE.unpack(seen)[0] == since
    client.say(3, "open")
    assert {client.take()[1] for _ in range(3)} == {1, 2, 3}
    wait_for(lambda: PULSE.unpack(seen) == (0.0,))


def test_what_calls_measure_comes_with_answers(client: Client) -> None:
    """`context.metrics` of a call's own context reaches the sidecar."""
    client.say(1, "measure")
    _, _, (answer,) = client.take_answers()
    assert [(each.kind, each.name, each.value) for each in answer.measured] == [("counter", "Asked", 2.0)]


def test_a_handler_that_is_not_async_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each way round: `async def` and what the archive says have to agree."""
    from marway.wire.envelope import Part, Row

    row = Row("r", [Part("data", b"x", "text/plain")], {})
    service = service_of(lambda data, context: ["x"], tmp_path, monkeypatch)
    (answer,) = asyncio.run(service.answered_async([row], lambda _: None))
    assert answer.body == b"its archive says asyncCommunication, and the handler is not `async def`"
    service = service_of(Handler().handle, tmp_path, monkeypatch)
    (answer,) = service.answered([row], lambda _: None)
    assert answer.body.startswith(b"the handler is `async def`: its archive's configuration file has to say")


def test_a_context_that_cannot_be_copied_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TorchServe leaves such a call without an answer."""
    from marway.wire.envelope import Part, Row

    service = service_of(Handler().handle, tmp_path, monkeypatch)
    service.context.lock = threading.Lock()
    (answer,) = asyncio.run(service.answered_async([Row("r", [Part("data", b"x")], {})], lambda _: None))
    assert (answer.status, answer.kind) == (500, "error")
    assert b"in its context that cannot be copied: TypeError" in answer.body
