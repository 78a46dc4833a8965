"""How a worker reads TorchServe's messages: the same as TorchServe's own reader, wherever they are cut on their way."""

from __future__ import annotations

import random
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterator

import pytest

from marway.wire.envelope import KEY, ROWS_CONTENT_TYPE, Part, Row, encode_rows

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
    from ts.protocol import otf_message_handler

    from marway_runtime.worker import field_reader
    from marway_runtime.worker.field_reader import FieldReader

pytestmark = pytest.mark.timeout(60)
BUFFER = 64 * 1024
ROWS_TYPE = ROWS_CONTENT_TYPE.encode()
ROWS = [
    Row("first", [Part("data", b"\x00\xff" * 100_000, "image/png")], {"x-request-id": "first"}),
    Row("second", [Part("a", b"", None), Part("data", b"[1]", "application/json")]),
]


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have our reader in place as in a worker, and TorchServe's own again after the test."""
    for name in ("_retrieve_buffer", "_retrieve_input_data"):
        monkeypatch.setattr(otf_message_handler, name, getattr(otf_message_handler, name))
    monkeypatch.setattr(otf_message_handler, "logging", _Silent())
    field_reader.install()


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, socket.socket]]:
    """The front end's end of a connection, and the worker's."""
    front, worker = socket.socketpair()
    with front, worker:
        yield front, worker


class _Silent:
    def info(self, *_: object) -> None:
        return

    warning = info


def field(data: bytes) -> bytes:
    return struct.pack("!i", len(data)) + data


def message(*inputs: tuple[bytes, bytes, bytes], headers: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """Return an inference message with one request, as TorchServe's front end writes it."""
    end = struct.pack("!i", -1)
    said = b"".join(field(name) + field(value) for name, value in headers)
    given = b"".join(field(name) + field(kind) + field(value) for name, kind, value in inputs)
    return b"I" + field(b"front-id") + said + end + given + end + end


def sent(front: socket.socket, data: bytes, *cuts: int) -> threading.Thread:
    """Send data in pieces that end at these places, from a thread."""

    def send() -> None:
        start = 0
        for cut in (*cuts, len(data)):
            front.sendall(data[start:cut])
            start = cut

    thread = threading.Thread(target=send)
    thread.start()
    return thread


@pytest.mark.parametrize("size", [0, 1, 4, BUFFER - 5, BUFFER - 1, BUFFER, BUFFER + 1, 2 * BUFFER, 5 * 2**20 + 3])
def test_values_of_any_size(line: tuple[socket.socket, socket.socket], size: int) -> None:
    """What lies before and behind a value of any size is read right, and the value is a bytearray of its own."""
    front, worker = line
    value = random.Random(size).randbytes(size)
    sending = sent(front, (b"left" + value + b"right") * 2)
    reader = FieldReader(worker)
    for _ in range(2):
        assert reader.take(4) == b"left"
        taken = reader.take(size)
        assert isinstance(taken, bytearray)
        assert taken == value
        assert reader.take(5) == b"right"
    sending.join()


def test_no_length_is_nothing(line: tuple[socket.socket, socket.socket]) -> None:
    """A length of zero or less takes nothing, as in TorchServe."""
    front, worker = line
    front.sendall(b"abc")
    reader = FieldReader(worker)
    assert [reader.take(1), reader.take(0), reader.take(-1), reader.take(2)] == [b"a", b"", b"", b"bc"]


@pytest.mark.parametrize("input_of", [lambda data: (KEY.encode(), b"", data), lambda data: (b"body", ROWS_TYPE, data)])
def test_an_envelope_becomes_rows_wherever_it_is_cut(
    line: tuple[socket.socket, socket.socket], input_of: Callable[[bytes], tuple[bytes, bytes, bytes]]
) -> None:
    """Over gRPC and over REST, cut at any byte of its head and at some of its values, an envelope gives the same rows;
    its values are bytearrays."""
    front, worker = line
    data = message(input_of(encode_rows(ROWS)), headers=((b"host", b"x"),))
    draw = random.Random(7)
    for cuts in [(at,) for at in range(1, 300, 3)] + [sorted(draw.sample(range(len(data)), 20)) for _ in range(10)]:
        sending = sent(front, data, *cuts)
        command, (request,) = otf_message_handler.retrieve_msg(worker)
        sending.join()
        (given,) = request["parameters"]
        assert (command, request["requestId"], given["name"]) == (b"I", b"front-id", KEY)
        assert request["headers"] == [{"name": b"host", "value": b"x"}]
        assert given["value"] == ROWS
        assert all(isinstance(part.value, bytearray) for row in given["value"] for part in row.parts)


def test_all_else_is_as_torchserve_reads_it(line: tuple[socket.socket, socket.socket]) -> None:
    """Names that begin like ours, and bodies of other types, go the way of TorchServe's own code."""
    front, worker = line
    others = [
        (b"body", b"", b"raw"),
        (b"body", b"application/json", b"[1]"),
        (b"body", b"text/plain", "ü".encode()),
        (b"body", ROWS_TYPE + b"2", b"raw"),
        (b"bodx", ROWS_TYPE, b"raw"),
        (KEY.encode()[:-1] + b"2", b"", b"raw"),
        (KEY.encode() + b"2", b"", b""),
        (b"", b"", b"x" * 3 * BUFFER),
    ]
    sending = sent(front, message(*others))
    _, (request,) = otf_message_handler.retrieve_msg(worker)
    sending.join()
    assert [given["name"].encode() for given in request["parameters"]] == [name for name, _, _ in others]
    values = [given["value"] for given in request["parameters"]]
    assert values == [b"raw", [1], "ü", b"raw", b"raw", b"raw", b"", b"x" * 3 * BUFFER]


def test_the_next_message_may_have_come_already(line: tuple[socket.socket, socket.socket]) -> None:
    """What was read ahead belongs to the next message."""
    front, worker = line
    two = message((b"body", b"", b"one")) + message((KEY.encode(), b"", encode_rows(ROWS[1:])))
    front.sendall(two)
    first = otf_message_handler.retrieve_msg(worker)[1]
    second = otf_message_handler.retrieve_msg(worker)[1]
    assert first[0]["parameters"][0]["value"] == b"one"
    assert second[0]["parameters"][0]["value"] == ROWS[1:]


@pytest.mark.parametrize("kept", [0, 1, 12, 60, 100_000])
def test_a_front_end_that_leaves_ends_the_worker(line: tuple[socket.socket, socket.socket], kept: int) -> None:
    """A connection that ends between messages or within one ends the process in peace, as TorchServe does it."""
    front, worker = line
    sending = sent(front, message((KEY.encode(), b"", encode_rows(ROWS)))[:kept])
    sending.join()
    front.close()
    with pytest.raises(SystemExit) as ended:
        otf_message_handler.retrieve_msg(worker)
    assert ended.value.code == 0


def test_what_is_no_envelope_is_refused(line: tuple[socket.socket, socket.socket]) -> None:
    """Something else under our key raises before memory is taken for what it says that it holds."""
    front, worker = line
    lying = encode_rows([Row("one", [Part("data", b"x")])]).replace(b"1]]", b"9]]")
    for data in (b"", b"MWE1", b"MWE1\xff\xff\xff\xff[]", lying):
        front.sendall(message((KEY.encode(), b"", data)))
        with pytest.raises(ValueError, match=r"envelope"):
            otf_message_handler.retrieve_msg(worker)
        worker.setblocking(False)
        while True:
            try:
                worker.recv(BUFFER)
            except BlockingIOError:
                break
        worker.setblocking(True)
        field_reader._reader = None
