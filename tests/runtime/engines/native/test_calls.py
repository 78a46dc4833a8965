"""The loop of a worker, in a thread of the test, with a service that is none of TorchServe's."""

from __future__ import annotations

import mmap
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from marway.wire.envelope import Answer, Row
from marway_http.frames import Kind, frame_header
from support.native_worker import Client, wait_for

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open while it is imported
    from marway_runtime.engines.native.worker import PULSE, Calls
    from marway_runtime.worker.service import MarwayService


class Service:
    """Answers a row with its value; `hold` waits for the gate, `pieces` sends two."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.made: list[bytes] = []

    def answered(self, rows: list[Row], send: Callable[[Answer], None]) -> list[Answer]:
        value = bytes(rows[0].parts[0].value)
        self.made.append(value)
        if value.startswith(b"hold"):
            assert self.gate.wait(20)
        if value == b"pieces":
            for piece in (b"one", b"two"):
                send(Answer(200, piece, "bytes"))
        return [Answer(200, bytes(row.parts[0].value), "bytes") for row in rows]


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def pulse(tmp_path: Path) -> Path:
    (tmp_path / "pulse").write_bytes(bytes(PULSE.size))
    return tmp_path / "pulse"


@pytest.fixture
def client(tmp_path: Path, service: Service, pulse: Path) -> Iterator[Client]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    calls = Calls(cast("MarwayService", service), listener, pulse)
    threading.Thread(target=calls.serve, daemon=True).start()  # it serves until its process ends
    client = Client(tmp_path / "s")
    yield client
    service.gate.set()
    client.socket.close()


def test_calls_are_answered_in_their_order(client: Client) -> None:
    """Many calls in one write are answered one after the other, each with all of its rows."""
    for number in range(1, 50):
        client.send(number, b"%d" % number, b"x" * number)
    assert [client.take() for _ in range(1, 50)] == [
        (Kind.ANSWER, number, [b"%d" % number, b"x" * number]) for number in range(1, 50)
    ]


def test_a_large_call_and_answer(client: Client) -> None:
    """Values of some MiB go both ways while the worker reads and writes nothing else."""
    value = bytes(range(256)) * 8192
    sending = threading.Thread(target=client.send, args=(1, value, value))
    sending.start()
    assert client.take() == (Kind.ANSWER, 1, [value, value])
    sending.join()


def test_a_call_given_up_in_time_is_not_made(client: Client, service: Service) -> None:
    """Of the calls behind a long one, the one that is cancelled is never begun; neither are those of who has left."""
    gone = Client(Path(client.socket.getpeername()))
    gone.send(1, b"before")
    gone.take()
    service.made.clear()
    client.send(1, b"hold")
    wait_for(lambda: service.made == [b"hold"])
    gone.send(2, b"of who leaves")
    for number, value in ((2, b"b"), (3, b"c")):
        client.send(number, value)
    client.socket.sendall(frame_header(Kind.CANCEL, 2))
    gone.socket.close()
    service.gate.set()
    assert [client.take()[1] for _ in range(2)] == [1, 3]
    assert service.made == [b"hold", b"c"]


def test_pieces_come_before_the_answer(client: Client) -> None:
    """What a handler sends on the way are parts, and what it returns ends the call."""
    client.send(7, b"pieces")
    assert [client.take() for _ in range(3)] == [
        (Kind.PART, 7, [b"one"]),
        (Kind.PART, 7, [b"two"]),
        (Kind.ANSWER, 7, [b"pieces"]),
    ]


def test_who_sends_nonsense_loses_the_connection(client: Client) -> None:
    """What is no envelope ends its connection and no other."""
    other = Client(Path(client.socket.getpeername()))
    other.socket.sendall(frame_header(Kind.REQUEST, 1, body=8) + b"nonsense")
    assert other.socket.recv(10) == b""
    other.socket.close()
    client.send(1, b"still")
    assert client.take() == (Kind.ANSWER, 1, [b"still"])


def test_the_pulse_says_since_when(client: Client, service: Service, pulse: Path) -> None:
    """Who maps the file sees since when the worker is in a call, and 0 when it is in none."""
    with pulse.open("rb") as file:
        seen: Any = mmap.mmap(file.fileno(), PULSE.size, access=mmap.ACCESS_READ)
    assert PULSE.unpack(seen) == (0.0,)
    before = time.monotonic()
    client.send(1, b"hold")
    wait_for(lambda: service.made == [b"hold"])
    (since,) = PULSE.unpack(seen)
    assert before <= since <= time.monotonic()
    service.gate.set()
    client.take()
    wait_for(lambda: PULSE.unpack(seen) == (0.0,))
