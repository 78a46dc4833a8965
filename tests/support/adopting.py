"""Old servers to take over: real ones, with what teams have beside them, and requests of their clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from support.torchserve import StockTorchServe, archive

__all__ = ["SENTIMENT", "OldServer", "old_torchserve", "write_requests"]

SENTIMENT = """\
import json

_SCORES = {"good": 0.4, "great": 0.45, "love": 0.3, "bad": -0.4, "awful": -0.45, "late": -0.2, "not": -0.15}


class Sentiment:
    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [self._one(row if "text" in row else row.get("body") or row.get("data")) for row in data]

    def _one(self, row):
        text = row["text"] if isinstance(row, dict) else row if isinstance(row, str) else bytes(row).decode()
        score = sum(_SCORES.get(word.strip(".,!").lower(), 0.0) for word in text.split())
        positive = min(1.0, max(0.0, 0.5 + score))
        label = "positive" if positive >= 0.5 else "negative"
        return {"label": label, "scores": {"positive": positive, "negative": 1 - positive}}
"""
SHOUT = """\
def handle(data, context):
    if data is None:
        return None
    texts = [row.get("body") or row.get("data") for row in data]
    return [(text if isinstance(text, str) else text.decode()).upper() + "MARK" for text in texts]
"""
TEXTS = (
    "a great phone, I love it",
    "the parcel was late and the box was awful",
    "not bad",
    "it does what it says",
    "good sound, bad battery",
    "Great!",
)


@dataclass(frozen=True)
class OldServer:
    """One that runs, and what it was started with.

    Attributes:
        source: What `marway adopt` is given.
        url: Where it answers.
        requests: A file of its clients' requests.
        arguments: More for `marway adopt`.
        environment: More variables for it.
    """

    source: Path
    url: str
    requests: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


@contextmanager
def old_torchserve(home: Path) -> Iterator[OldServer]:
    """Run TorchServe with two models, one of them in two versions, and have it write a snapshot of what it serves."""
    with StockTorchServe(home / "shop", tokens=False, snapshots=True) as server:
        archive(server.store, "sentiment", SENTIMENT, file="sentiment.mar")
        for version in ("1.0", "2.0"):
            archive(server.store, "shout", SHOUT.replace("MARK", "!" * int(version[0])), version=version)
        management = server.addresses["management"]
        for file, more in (
            ("sentiment.mar", {"batch_size": "4", "max_batch_delay": "20", "initial_workers": "1"}),
            ("shout-1.0.mar", {"initial_workers": "1"}),
            ("shout-2.0.mar", {"initial_workers": "1"}),
        ):
            query = {"url": file, "synchronous": "true", **more}
            answer = httpx.post(f"{management}/models", params=query, timeout=120, trust_env=False)
            assert answer.status_code == 200, answer.text
        set_default = httpx.put(f"{management}/models/shout/2.0/set-default", timeout=30, trust_env=False)
        assert set_default.status_code == 200, set_default.text
        lines = [{"path": "/predictions/sentiment", "body": {"text": text}} for text in TEXTS]
        lines += [{"path": "/predictions/shout", "body": text} for text in TEXTS[:3]]
        lines += [
            {"path": "/predictions/shout/1.0", "body": "hello"},
            {"path": "/predictions/sentiment", "body": {"words": "no text"}},
            {"method": "GET", "path": "/ping"},
            {"path": "/predictions/gone", "body": "hello"},
        ]
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(server.work, server.addresses["inference"], requests)


def write_requests(path: Path, lines: list[dict[str, object]]) -> Path:
    """Write a file of requests and return it."""
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path
