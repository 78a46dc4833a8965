"""The store of observations fails under load, or the gateway is killed: predictions do not notice, little is lost.

The parts of it are in `observations/test_observations.py`, which is run each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from gateway.fakes import FakePod, Running, running
from gateway.handlers import ready
from gateway.observe.test_every_ending import kept
from marway.objects.files import Files
from marway.registry import Registry
from marway.wire.headers import PREDICTION_ID
from support.every import LONG
from support.gateways import GatewayProcess
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
FAULT_S = 30.0 if LONG else 1.5
NAME = "marway_gateway_observations_"

pytestmark = pytest.mark.extended


def failing(number: int) -> Callable[[], None]:
    def fail() -> None:
        raise OSError(number, os.strerror(number))

    return fail


FAULTS: dict[str, Callable[[], None]] = {
    "away": failing(errno.EIO),
    "full": failing(errno.ENOSPC),
    "read-only": failing(errno.EROFS),
    "slow": lambda: time.sleep(FAULT_S / 3),
}


@contextlib.contextmanager
def breaking(below: Path, fault: Callable[[], None], patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have each write below a directory fail so for as long as the context lasts."""
    create = Files.create_temporary

    def broken(self: Files, directory: Path, prefix: str) -> tuple[int, Path]:
        if directory.is_relative_to(below):
            fault()
        return create(self, directory, prefix)

    with patch.context() as patched:
        patched.setattr(Files, "create_temporary", broken)
        yield


async def asking(gateway: Running, ended: asyncio.Event, counts: list[int]) -> None:
    while not ended.is_set():
        answer = await gateway.predict()
        counts.append(answer.status_code)


@pytest.mark.parametrize("fault", FAULTS)
async def test_fault_the_store_of_observations_fails(
    registry: Registry, make_pod: MakePod, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """Away, full, read-only or slow: all are answered, what is lost is counted, and what is not is kept."""
    publish(registry, tmp_path)
    observed, ended = tmp_path / "observed", asyncio.Event()
    counts: list[int] = []
    async with running(
        await make_pod(),
        registry=registry,
        observations=observed.as_uri(),
        observations_flush_s=0.2,
        observations_buffer_rows=40,
    ) as gateway:
        await ready(gateway)
        clients = [asyncio.create_task(asking(gateway, ended, counts)) for _ in range(4)]
        await until(lambda: kept(observed / "observations"))
        with breaking(observed, FAULTS[fault], monkeypatch):
            await asyncio.sleep(FAULT_S)
            assert (await gateway.client.get("/readyz")).status_code == 200
            assert await gateway.metric(f"{NAME}waiting") <= 40
        ended.set()
        await asyncio.gather(*clients)
        while await gateway.metric(f"{NAME}waiting"):
            await asyncio.sleep(0.05)
        metrics = (await gateway.client.get("/metrics")).text
    assert set(counts) == {200}
    rows = kept(observed / "observations")
    dropped = sum(
        float(line.rpartition(" ")[2]) for line in metrics.splitlines() if line.startswith(f"{NAME}dropped_total{{")
    )
    assert len({row["prediction_id"] for row in rows}) == len(rows) == len(counts) - dropped
    if fault != "slow":
        assert dropped > 0


async def test_fault_a_gateway_dies_with_observations_in_hand(
    registry: Registry, make_pod: MakePod, tmp_path: Path
) -> None:
    """What was answered before that is in files that can all be read, after kill -9 under load."""
    publish(registry, tmp_path)
    pod = await make_pod()
    flush_s, answered = 1.0, list[tuple[float, str]]()
    pods = [f"{pod.address.name}={pod.address.url}"]
    home = tmp_path / "home"
    gateway = GatewayProcess(home, registry=registry.url, pods=pods, observations_flush_s=flush_s)
    try:
        await asyncio.to_thread(gateway.__enter__)  # it asks the gateway, which asks the pod that runs here
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            ends = time.monotonic() + 3.5
            while time.monotonic() < ends:
                answer = await client.post("/predict/intent", content=b"hello")
                answered.append((time.monotonic(), answer.headers[PREDICTION_ID]))
        gateway.process.kill()
        killed = time.monotonic()
    finally:
        await asyncio.to_thread(gateway.__exit__)
    rows = {row["prediction_id"] for row in kept(tmp_path / "registry" / "observations")}
    old = [prediction_id for at, prediction_id in answered if at < killed - flush_s - 0.5]
    assert len(old) > 10
    assert rows >= set(old)
