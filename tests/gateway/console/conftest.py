"""One gateway with a pod and models for all tests of the console in a module, and one browser."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest_asyncio
from playwright.async_api import Browser, Page

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway.wire.pods import HandlerLine
from support.browser import Seen, browser, new_page
from support.observations import feedback, observation, write_feedback, write_observations
from support.registry import publish

__all__ = ["browser_of_module", "opened", "shown"]


FAILED = HandlerLine(
    at=utc_now(),
    level="error",
    text="KeyError: 'text'",
    worker=9001,
    request_ids=("r-failed",),
    traceback='Traceback (most recent call last):\n  File "handler.py", line 12, in preprocess\n'
    '    text = row["text"]\n'
    "KeyError: 'text'",
)


def kept(registry: Registry) -> None:
    """Predictions of two versions in the last 6 hours, one failure, and feedback about half of them."""
    now, rows, told = utc_now(), [], []
    for minute in range(0, 360, 3):
        at = now - timedelta(minutes=minute + 1)
        for version, ms, right in (("1.0", 4.0, 8), ("1.1", 2.5, 9)):
            duration_s = (ms + 2 * math.sin(minute / 40) ** 2 + minute % 7 / 5) / 1000
            rows.append(observation(at=at, version=version, duration_s=duration_s))
            if minute % 2:
                told.append(feedback(correct=minute // 3 % 10 < right, prediction_id=rows[-1]["prediction_id"], at=at))
    failed = {"outcome": "model_error", "error": "model_error", "status": "500", "pod": "pod-0"}
    rows.append(observation(at=now - timedelta(minutes=4), version="1.0", request_id="r-failed", **failed))
    write_observations(registry.store, "intent", rows)
    write_feedback(registry.store, told)


class Shown:
    """A gateway whose console is looked at.

    Attributes:
        gateway: It runs.
        pod: Its pod, which loads and answers all.
        registry: Has `intent` 1.0 (PROD), 1.1 and 2.0, and `digits` 1 (PROD).
        console: The address of the admin port.
    """

    def __init__(self, gateway: Running, pod: AdminPod, registry: Registry) -> None:
        self.gateway, self.pod, self.registry = gateway, pod, registry
        self.console = gateway.addresses.admin


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(tmp_path_factory) -> AsyncIterator[Shown]:
    directory: Path = tmp_path_factory.mktemp("console")
    registry = Registry(DirectoryStore(directory / "registry"))
    publish(registry, directory, "intent", "1.0")
    publish(registry, directory, "intent", "1.1", label=None)
    publish(registry, directory, "intent", "2.0", label=None)
    publish(registry, directory, "digits", "1")
    pod = AdminPod("pod-0", registry=registry)
    await pod.start()
    try:
        async with running(pod, registry=registry, state_ttl_s=0.2, duties=False) as gateway:
            while not (await gateway.admin.get("/pods")).json()[0]["status"]:
                pass
            await gateway.admin.post("/models/intent/versions/1.0/load")
            for _ in range(3):
                await gateway.client.post("/predict/intent", content="wake me")
            kept(registry)
            pod.lines = (FAILED,)
            yield Shown(gateway, pod, registry)
    finally:
        await pod.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser_of_module() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def opened(browser_of_module: Browser) -> AsyncIterator[tuple[Page, Seen]]:
    """A page with cookies of its own."""
    async with new_page(browser_of_module) as page:
        yield page
