"""A gateway that is killed while feedback comes."""

from __future__ import annotations

import itertools
import random
import threading
import time
from pathlib import Path

import httpx
import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from support.every import LONG
from support.gateways import GatewayProcess
from support.kept_feedback import kept_feedback
from support.up import wait_until

CLIENTS = 4


# tests/gateway/feedback/test_log.py tries every moment of the disk, without processes.
@pytest.mark.extended
def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    """Whenever a gateway is killed, each entry whose sender had a 202 is in the store, and every file is whole."""
    chance, numbers = random.Random(19), itertools.count()
    store = DirectoryStore(tmp_path / "registry")
    Registry(store).create()
    sent: set[float] = set()
    told: set[float] = set()
    for turn in range(12 if LONG else 3):
        gateway = GatewayProcess(
            tmp_path / f"home-{turn}", registry=store.url, pods=["http://127.0.0.1:9"], feedback_interval_s=0.01
        )
        try:
            wait_until(lambda gateway=gateway: gateway.addresses, timeout_s=60, what="a gateway")
            url = f"{gateway.url}/feedback"

            def send(url: str = url) -> None:
                with httpx.Client(trust_env=False, timeout=30) as client:
                    for first in numbers:
                        scores = [first + part / 10 for part in range(first % 4 + 1)]
                        sent.update(scores)
                        try:
                            answer = client.post(url, json=[{"request_id": "r", "score": each} for each in scores])
                        except httpx.TransportError:
                            return
                        if answer.status_code == 202:
                            told.update(scores)

            senders = [threading.Thread(target=send) for _ in range(CLIENTS)]
            for sender in senders:
                sender.start()
            before = len(told)
            wait_until(lambda before=before: len(told) > before + 20, timeout_s=30, what="some feedback")
            time.sleep(chance.uniform(0, 0.3))
            gateway.process.kill()
            for sender in senders:
                sender.join(60)
        finally:
            gateway.__exit__()
        kept = [row["score"] for row in kept_feedback(store)]
        assert told <= set(kept) <= sent
        assert len(kept) == len(set(kept))
