"""The loop of a worker whose archive says `continuousBatching`, in a thread of the test, driven by frames."""

from __future__ import annotations

import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from marway_http.frames import Kind
from support.native_worker import Client, service_of, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open while it is imported
    from marway_runtime.engines.native.continuous_calls import ContinuousCalls
    from marway_runtime.engines.native.worker import PULSE

# TorchServe leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*metrics.yaml:pytest.PytestUnraisableExceptionWarning")


class Handler:
    """A word of each row with each call, which waits until the test lets it."""

    def __init__(self) -> None:
        self.may = threading.Semaphore(0)
        self.words: dict[str, list[str]] = {}
        self.steps: list[list[str]] = []

    def handle(self, data: list[dict[str, Any]], context: Any) -> list[str]:
        ids = list(context.request_ids.values())
        self.steps.append([each.partition(".")[0] for each in ids])
        for each, row in zip(ids, data, strict=True):
            if row:
                self.words[each] = row["data"].split()
        assert self.may.acquire(timeout=20)
        context.metrics.add_counter("Steps", 1)
        context.stopping_criteria = [lambda _, each=each: not self.words[each] for each in ids]
        return [self.words[each].pop(0) for each in ids]


@pytest.fixture
def handler() -> Handler:
    return Handler()


@pytest.fixture
def client(tmp_path: Path, handler: Handler, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    service = service_of(handler.handle, tmp_path, monkeypatch, config="continuousBatching: true\nbatchSize: 2\n")
    (tmp_path / "pulse").write_bytes(bytes(PULSE.size))
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    calls = ContinuousCalls(service, listener, tmp_path / "pulse", at_once=2)
    threading.Thread(target=calls.serve, daemon=True).start()  # it serves until its process ends
    client = Client(tmp_path / "s")
    yield client
    handler.may.release(100)
    client.socket.close()


def test_rows_join_and_leave_between_calls(client: Client, handler: Handler) -> None:
    """A later row joins the one under way, up to the archive's batch size, and each piece is sent as it is there."""
    client.say(1, "a b c", stream=True)
    wait_for(lambda: handler.steps == [["r-1"]])
    client.say(2, "x", stream=True)
    client.say(3, "y z", stream=True)
    handler.may.release()
    assert client.take() == (Kind.PART, 1, [b"a"])
    handler.may.release()
    assert [client.take() for _ in range(2)] == [(Kind.PART, 1, [b"b"]), (Kind.ANSWER, 2, [b"x"])]
    handler.may.release()
    assert [client.take() for _ in range(2)] == [(Kind.ANSWER, 1, [b"c"]), (Kind.PART, 3, [b"y"])]
    handler.may.release()
    assert client.take() == (Kind.ANSWER, 3, [b"z"])
    assert handler.steps == [["r-1"], ["r-1", "r-2"], ["r-1", "r-3"], ["r-3"]]


def test_what_is_given_up_is_not_gone_on_with(client: Client, handler: Handler) -> None:
    """A row whose caller has left makes room; so do all of a sidecar that has gone."""
    other = Client(Path(client.socket.getpeername()))
    other.say(1, "a b c d e", stream=True)
    wait_for(lambda: handler.steps == [["r-1"]])
    client.say(2, "v w x y z", stream=True)
    client.say(3, "last", stream=True)
    handler.may.release()
    wait_for(lambda: len(handler.steps) == 2)
    client.cancel(2)
    other.socket.close()
    handler.may.release(2)
    wait_for(lambda: handler.steps[-1] == ["r-3"])
    kinds = []
    while (taken := client.take())[1] != 3:
        kinds.append(taken)
    assert taken == (Kind.ANSWER, 3, [b"last"])


def test_what_is_measured_comes_with_the_first_piece(client: Client, handler: Handler) -> None:
    """A call of the handler brings its measurements along once, whatever the number of its rows."""
    client.say(1, "a b", stream=True)
    wait_for(lambda: len(handler.steps) == 1)
    client.say(2, "x", stream=True)
    handler.may.release(2)
    answers = [client.take_answers()[2][0] for _ in range(3)]
    assert [[each.value for each in answer.measured] for answer in answers] == [[1.0], [1.0], []]


def test_a_call_of_many_rows_is_refused(client: Client) -> None:
    """Rows come and go one by one here."""
    client.send(1, b"a", b"b")
    assert client.take() == (Kind.ANSWER, 1, [b"a call of a continuousBatching archive has one row"] * 2)
