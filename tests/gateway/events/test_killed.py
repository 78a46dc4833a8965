"""Whoever raises and sends events may be killed at any moment: the next goes on, and no event is lost."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from gateway.events.conftest import SECRET, Receiver
from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_gateway.events.delivery import Delivery
from marway_gateway.events.history import HistoryScan
from marway_gateway.events.metrics import DeliveryMetrics
from marway_gateway.events.sending import Sender
from marway_gateway.events.webhooks import WebhooksFile
from marway_observations.events import EventLog
from marway_observations.events.outbox import Outbox
from support import killed_sender
from support.registry import publisher


class Killed(BaseException):
    """What the death of a process looks like from within: nothing catches it, and nothing more is done."""


class KillingStore(DirectoryStore):
    """A store whose user dies before, or right after, its n-th call."""

    def __init__(self, root: Path, at: int) -> None:
        super().__init__(root)
        self.at = at
        self.count = 0
        self.dead = False

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("get", "size", "tag", "create", "replace", "delete", "keys"):
            return found

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._count()
            result = found(*args, **kwargs)
            self._count()
            return result

        return counted

    def _count(self) -> None:
        self.count += 1
        self.dead = self.dead or self.count == self.at
        if self.dead:
            raise Killed


async def worked(store: DirectoryStore, file: WebhooksFile) -> None:
    """Do what a gateway does once: look through the histories, then send."""
    scan = HistoryScan(Registry(store, must_exist=True), pace_s=0)
    delivery = Delivery(
        store,
        file.current,
        sender=Sender(),
        metrics=DeliveryMetrics(CollectorRegistry(), now=utc_now),
    )
    try:
        await scan.run()
        await delivery.run()
    except Killed:
        pass
    finally:
        scan.close()
        await delivery.aclose()


# Extended: every point; the other tries some of them.
@pytest.mark.parametrize("step", [9, pytest.param(1, marks=pytest.mark.extended)])
async def test_no_event_is_lost_whenever_the_holder_dies(tmp_path: Path, receiver: Receiver, step: int) -> None:
    """Killed before or after a call of the store, one after the other: the next one finishes, and all is delivered."""
    webhooks = tmp_path / "webhooks.toml"
    webhooks.write_text(f'[[webhook]]\nname = "hook"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n')
    webhooks.chmod(0o600)
    file = WebhooksFile(webhooks)
    store = DirectoryStore(tmp_path / "registry")
    registry = Registry(store)
    registry.create()
    publisher(registry, tmp_path)("intent", "1.0")
    await worked(store, file)  # from here on models without a cursor are new
    made = at = 0
    while True:
        at += step
        registry.release("intent", "1.0", by="ann")
        registry.release("intent", "1.0", by="ann")
        made = registry.state("intent").generation
        dying = KillingStore(tmp_path / "registry", at)
        await worked(dying, file)
        await worked(store, file)
        assert list(Outbox(store).pending()) == [], at
        if not dying.dead:
            break
    ids = {document["id"] for document in receiver.got.values()}
    assert ids == {f"intent-{number}" for number in range(1, made + 1)}
    assert {key.rpartition("/")[2] for key in EventLog(store).keys()} == {f"{each}.json" for each in ids}  # noqa: SIM118
    assert at > 20
    assert (
        len(receiver.ids) - len(ids) < at / 4 / step + 2
    )  # copies are sent where it is killed between sending and keeping


@pytest.mark.extended  # the test above kills at every call, without processes
async def test_another_process_goes_on_when_the_holder_is_killed(tmp_path: Path, receiver: Receiver) -> None:
    """Of two gateways' processes the one that holds the lease is killed (kill -9), several times: all is delivered."""
    webhooks = tmp_path / "webhooks.toml"
    webhooks.write_text(f'[[webhook]]\nname = "hook"\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n')
    webhooks.chmod(0o600)
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    registry.create()
    publish = publisher(registry, tmp_path)
    path = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}

    def started() -> subprocess.Popen[bytes]:
        words = [sys.executable, killed_sender.__file__, str(tmp_path / "registry"), str(webhooks)]
        return subprocess.Popen(words, env={**os.environ, **path})

    running = [started(), started()]
    try:
        async with asyncio.timeout(60):
            while not registry.store.size("events/cursors-made.json"):
                await asyncio.sleep(0.05)
            for number in range(3):
                publish("intent", f"{number}.0")
                receiver.answers = [(503, {})]
                tries = len(receiver.ids)
                registry.release("intent", f"{number}.0", by="ann")
                while len(receiver.ids) == tries:
                    await asyncio.sleep(0.02)
                holder = json.loads(registry.store.get("leases/webhooks.json").data)["holder"]
                victim = next(each for each in running if each.pid == int(holder))
                victim.send_signal(signal.SIGKILL)
                victim.wait()
                running.remove(victim)
                running.append(started())
            while len(receiver.got) < 3:
                await asyncio.sleep(0.05)
    finally:
        for each in running:
            each.kill()
            each.wait()
    assert {document["id"] for document in receiver.got.values()} == {f"intent-{number}" for number in range(1, 4)}
