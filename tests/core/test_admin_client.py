"""Calls of an admin port whose answers are lost, or come from something else."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from marway.admin_client import AdminClient
from marway.errors import InvalidSettings, StateConflict, Unavailable
from marway.wire.problems import CONTENT_TYPE, problem_of


@contextmanager
def answering(*answers: bytes) -> Iterator[tuple[str, list[str]]]:
    """Serve one connection for each answer, an empty one without any; give the URL and the requests that came."""
    requests: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            for answer in answers:
                connection, _ = listening.accept()
                with connection:
                    requests.append(connection.recv(65536).decode())
                    connection.sendall(answer)

        server = threading.Thread(target=serve, daemon=True)
        server.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", requests
        server.join(10)


def http(status: int, body: bytes, content_type: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status} X\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n"
    return f"{head}connection: close\r\n\r\n".encode() + body


def key(request: str) -> str:
    (found,) = [line for line in request.splitlines() if line.lower().startswith("idempotency-key:")]
    return found


def test_a_lost_answer_is_asked_for_again() -> None:
    """A change whose answer was lost is sent once more, under the same key, and not a third time."""
    with answering(b"", http(200, b'{"done": 1}')) as (url, requests):
        assert AdminClient(url, token="s3cret").call("DELETE", "/models/intent/versions/1") == {"done": 1}
    assert len(requests) == 2
    assert key(requests[0]) == key(requests[1])
    assert "Bearer s3cret" in requests[0]
    with answering(b"", b"") as (url, requests), pytest.raises(Unavailable, match="no gateway answers"):
        AdminClient(url).call("GET", "/pods")
    assert len(requests) == 2


def test_what_the_gateway_says() -> None:
    """A problem comes back as the error that it stands for."""
    problem, _ = problem_of(StateConflict("intent PROD is at 1.1", model="intent"))
    with (
        answering(http(409, problem.body(), CONTENT_TYPE)) as (url, _),
        pytest.raises(StateConflict, match=r"is at 1\.1"),
    ):
        AdminClient(url).release("intent", "1.0", label="PROD")


@pytest.mark.parametrize(
    "answer", [http(200, b"<html>", "text/html"), http(404, b"nothing", "text/plain"), http(302, b"")]
)
def test_somebody_else_answers(answer: bytes) -> None:
    """Whatever answers there and is no gateway's admin port is named as such."""
    with answering(answer) as (url, _), pytest.raises(InvalidSettings, match="is not the admin port of a gateway"):
        AdminClient(url).call("GET", "/pods")
