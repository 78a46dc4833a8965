"""A candidate on a real sidecar, which loses it under load: callers see nothing of it."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from gateway.fakes import Running, running
from gateway.handlers import ready
from marway.registry import Registry
from marway.wire.headers import OUTCOME, READY_ONLY, TRAFFIC
from marway_gateway.settings import PodAddress
from support.dividing import divide, traffic_of
from support.pod import FakeServer, serving
from support.registry import publish

_CALLERS = 4
_WAIT_S = 5.0
"""No request may take so long: a load, while loads are held, would take all of its deadline."""


async def test_fault_a_candidate_that_is_lost(registry: Registry, tmp_path: Path) -> None:
    """The pod unloads the candidate and cannot load it: all callers are answered at once, the moment between included.

    Once it is loaded again, it has its callers back.
    """
    publish(registry, tmp_path)
    publish(registry, tmp_path, "intent", "2.0", label=None)
    divide(registry, "intent", traffic_of())
    server, told, stop = FakeServer(), Counter[str](), asyncio.Event()

    async def caller(gateway: Running) -> None:
        while not stop.is_set():
            async with asyncio.timeout(_WAIT_S):
                got = await gateway.predict()
            assert got.status_code == 200, got.text
            told[got.headers[TRAFFIC]] += 1

    async def more(side: str) -> None:
        before = told[side]
        async with asyncio.timeout(30):
            while told[side] < before + 20:
                await asyncio.sleep(0.005)

    async with serving(registry, tmp_path, server=server) as pod:
        for version in ("1.0", "2.0"):
            assert (await pod.client.post(f"/models/intent/{version}/load")).status_code == 200
        async with running(PodAddress("pod-0", pod.url), registry=registry) as gateway, asyncio.TaskGroup() as callers:
            await ready(gateway)
            tasks = [callers.create_task(caller(gateway)) for _ in range(_CALLERS)]
            await more("candidate")
            for _ in range(3):
                server.may_load.clear()
                assert (await pod.client.post("/models/intent/2.0/unload")).status_code == 200
                await more("base")
                server.may_load.set()
                assert (await pod.client.post("/models/intent/2.0/load")).status_code == 200
                await more("candidate")
            stop.set()
            await asyncio.gather(*tasks)


async def test_a_pod_refuses_what_is_not_to_wait(registry: Registry, tmp_path: Path) -> None:
    """Asked for a version that is not ready, for a caller who is not to wait, a pod says so and loads nothing."""
    publish(registry, tmp_path)
    server = FakeServer()
    async with serving(registry, tmp_path, server=server) as pod:
        ask = {READY_ONLY.replace("-", "_"): "1"}
        got = await pod.predict("intent", **ask)
        assert (got.status_code, got.json()["code"], got.headers[OUTCOME]) == (503, "unavailable", "not_accepted")
        assert not server.loaded
        assert (await pod.predict("intent")).status_code == 200
        assert (await pod.predict("intent", **ask)).status_code == 200
