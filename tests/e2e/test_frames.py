"""Predictions over frames, between a real gateway and its real pods."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from marway_archiver import publish
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HANDLER = Path(__file__).parent / "models" / "takes_time.py"
PATH = "/predict/takes-time/1.0"
CLIENTS = 16
REQUESTS = 20


@pytest.fixture(scope="module")
def model(up: Up) -> str:
    """A model whose calls take so long that all clients wait for one at the same time."""
    publish(
        model_name="takes-time",
        version="1.0",
        handler=str(HANDLER),
        registry=up.registry,
        examples=["a", "b"],
        label="PROD",
    )
    return PATH


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield pool


class Client:
    """A client that sends each request in one write, so that the gateway needs no task to wait for its body."""

    def __init__(self, up: Up) -> None:
        address = urlsplit(up.gateway)
        assert address.hostname is not None
        self._socket = socket.create_connection((address.hostname, address.port or 80), timeout=60)

    def ask(self, path: str, body: str) -> tuple[int, str]:
        """Return status and body of the answer."""
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: text/plain\r\ncontent-length: {len(body)}\r\n\r\n"
        self._socket.sendall((head + body).encode())
        answer = http.client.HTTPResponse(self._socket, method="POST")
        answer.begin()
        return answer.status, answer.read().decode()

    def close(self) -> None:
        self._socket.close()


def gateway_of(up: Up) -> psutil.Process:
    """Return the process that listens on the gateway's port."""
    port = urlsplit(up.gateway).port
    for process in psutil.Process(up.process.pid).children(recursive=True):
        for each in process.net_connections(kind="tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr.port == port:
                return process
    raise AssertionError("no process listens on the gateway's port")


def connections(gateway: psutil.Process, up: Up) -> int:
    """Return how many connections a gateway has to its pods; it keeps those of predictions for seconds."""
    ports = {urlsplit(pod["url"]).port for pod in up.ready["pods"]}
    return len([each for each in gateway.net_connections(kind="tcp") if each.raddr and each.raddr.port in ports])


def test_many_clients_share_few_connections(up: Up, model: str, threads: ThreadPoolExecutor) -> None:
    """Many clients at a time get each its own answers, and the gateway needs no connection for each of them."""

    def ask(number: int, count: int) -> list[tuple[int, str]]:
        with closing(Client(up)) as client:
            return [client.ask(model, f"{at} of {number}") for at in range(count)]

    assert ask(0, 5) == [(200, f"to {at} of 0") for at in range(5)]  # the first ones open the connections
    gateway = gateway_of(up)
    before = connections(gateway, up)
    answers = list(threads.map(ask, range(CLIENTS), [REQUESTS] * CLIENTS))
    opened = connections(gateway, up) - before
    for number, each in enumerate(answers):
        assert each == [(200, f"to {at} of {number}") for at in range(REQUESTS)]
    assert opened <= CLIENTS // 4  # over HTTP all that wait at a time have one
