"""Predictions over frames, between a real gateway and its real pods."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from marway_archiver import publish
from support.up import Up

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
HANDLER = Path(__file__).parent / "models" / "takes_time.py"
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
    return "/predict/takes-time"


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield pool


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
        with httpx.Client(base_url=up.gateway, timeout=60, trust_env=False) as client:
            asked = [client.post(model, content=f"{at} of {number}".encode()) for at in range(count)]
        return [(answer.status_code, answer.text) for answer in asked]

    assert ask(0, 3) == [(200, f"to {at} of 0") for at in range(3)]  # the first ones open connections
    gateway = gateway_of(up)
    before = connections(gateway, up)
    answers = list(threads.map(ask, range(CLIENTS), [REQUESTS] * CLIENTS))
    opened = connections(gateway, up) - before
    for number, each in enumerate(answers):
        assert each == [(200, f"to {at} of {number}") for at in range(REQUESTS)]
    assert opened <= CLIENTS // 2
