"""Which requests are copied, and what is counted and told of a copy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from marway.deadline import Deadline
from marway.errors import ModelError
from marway.objects import DirectoryStore, ObjectStore
from marway.records import VersionRecord
from marway.registry import Registry
from marway.resolve.resolved import Divided, Resolved
from marway.serving import ServingSettings
from marway.shadow.counts import ShadowCounts
from marway.shadow.report import ProcessCounts
from marway.traffic import ShadowRule, Traffic
from marway.wire.request import RequestIds
from marway_gateway.conversion.converters import Converters
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.predict.call import PredictCall
from marway_gateway.traffic.assignment import Assignment
from marway_gateway.traffic.evidence import Side
from marway_gateway.traffic.shadow.copies import Limits, ShadowCopies
from marway_gateway.traffic.shadow.counting import ShadowBook
from marway_gateway.traffic.shadow.judging import CopyJudge
from marway_gateway.traffic.shadow.sending import Came, CopySender, Dropped
from marway_gateway.transport.reply import Reply
from marway_http.channel import header_block
from support.label_moves import LossyStore
from support.registry import publish

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
TRAFFIC = Traffic(
    rollout="01JZ3W5N8Q3F6A0C91D24B7E58",
    base="1.0",
    candidate="1.1",
    percent=1,
    steps=(1, 100),
    shadow=(ShadowRule(version="1.1", percent=100),),
    began=NOW,
    step_began=NOW,
    by="ana",
)
KEPT = ServingSettings(observe="bodies")
JSON = header_block([(b"content-type", b"application/json")])


def reply(value: Any, *, status: int = 200, run: bytes = b"0,1000,1,1") -> Reply:
    return Reply(status, "answered", None, JSON, json.dumps(value).encode(), None, run)


@dataclass
class Sent:
    """Answers copies, and notes them."""

    came: Came | Dropped
    bodies: list[bytes]

    async def send(self, version: Resolved, headers: object, body: bytes, *, within_s: float) -> Came | Dropped:
        self.bodies.append(body)
        return self.came


class Pairs:
    """In the place of a tally."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def pair(self, step: int, base: Side, candidate: Side, **said: bool | None) -> None:
        self.told.append((step, base, candidate, said))


class Bench:
    """Copies, with all around them in the test's hands."""

    def __init__(self, store: DirectoryStore, records: tuple[VersionRecord, VersionRecord]) -> None:
        self.records = records
        self.store = store
        self.book = ShadowBook(store)
        self.pairs = Pairs()
        self.telemetry = Telemetry(Metrics(), None)
        self.sent = Sent(came({"label": "b"}), [])
        self.busy = False
        tally = cast("Callable[..., Any]", lambda model, label, traffic: self.pairs)
        self.converters = Converters(1)
        judge = CopyJudge(self.book, tally, self.telemetry, self.converters)
        sender = cast("CopySender", self.sent)
        self.copies = ShadowCopies(sender, judge, self.telemetry, busy=lambda: self.busy, limits=Limits(in_flight=4))

    def call(self, serving: ServingSettings = KEPT, *, percent: float = 100, body: bytes = b"text") -> PredictCall:
        base, candidate = (Resolved(record, serving, "PROD") for record in self.records)
        info = RequestInfo(method="POST", path="/predict/intent/PROD", ids=RequestIds("r1"))
        self.telemetry.predicting(info, "native")
        info.run, info.observe = b"0,1000,1,1", serving.observe
        opened = RequestBody.opened(body, max_bytes=10_000_000)
        call = PredictCall("intent", "PROD", {}, Deadline.after(10), info, opened)
        call.resolved = replace(base, divided=Divided(TRAFFIC, candidate, ((candidate, percent),)))
        return call

    async def done(self) -> ShadowCounts:
        for _ in range(20):
            await asyncio.sleep(0)
        return self.book.run("intent", "PROD", "1.0", TRAFFIC).of("1.1")


def came(value: Any, *, status: int = 200, error: ModelError | None = None) -> Came:
    made = reply(value, status=status, run=b"0,2000,1,1")
    answer = None if error is not None else made
    return Came("a", 0.003, status, answer, None if answer is None else answer.data, made.run, error)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    store = DirectoryStore(tmp_path / "registry")
    registry = Registry(store)
    first, second = (publish(registry, tmp_path, version=version) for version in ("1.0", "1.1"))
    return Bench(store, (first, second))


async def test_pairs_are_evidence(bench: Bench) -> None:
    """Both sides' failures, times and numbers are told with the step; so is whether the decisions differ."""
    bench.copies.answered(bench.call(), reply({"label": "a"}), shaped=False)
    assert bench.sent.bodies == []  # the answer goes out first
    await bench.done()
    bench.sent.came = came(None, status=500, error=ModelError("KeyError"))
    bench.copies.answered(bench.call(), reply({"label": "a"}), shaped=False)
    await bench.done()
    bench.sent.came = came({"label": "a"})
    bench.copies.failed(bench.call(), ModelError("KeyError"), shaped=False)
    counts = await bench.done()
    fine, slower = Side(False, True, 0.001), Side(False, True, 0.002)
    assert bench.pairs.told == [
        (0, fine, slower, {"shape_differs": False, "disagrees": True}),
        (0, fine, Side(True, True, 0.002), {"shape_differs": None, "disagrees": None}),
        (0, Side(True, True, 0.001), slower, {"shape_differs": None, "disagrees": None}),
    ]
    assert (counts.answered, counts.failed, counts.base_failed, counts.compared) == (3, 1, 1, 1)
    assert bench.telemetry.metrics.shadow_requests.labels("ok")._value.get() == 2


async def test_what_is_not_copied(bench: Bench) -> None:
    """No request that asks for no prediction, has a state, was answered by a cache or was drawn to the candidate."""
    no_prediction, cached, drawn = bench.call(), bench.call(), bench.call()
    no_prediction.info.prediction_id = None
    cached.info.cache = "hit"
    drawn.info.assignment = Assignment(TRAFFIC, candidate=True, failed=True)
    sequence, batch = replace(bench.call(), sequence="7"), replace(bench.call(), divides=False)
    for call in (no_prediction, cached, drawn, sequence, batch):
        bench.copies.answered(call, reply({}), shaped=False)
        bench.copies.failed(call, ModelError("x"), shaped=False)
    counts = await bench.done()
    assert (bench.sent.bodies, counts.dropped) == ([], {})


async def test_dropped(bench: Bench) -> None:
    """Bodies that are too large, made for another signature, or come while callers wait here; and what is too many."""
    bench.copies.answered(bench.call(body=b"x" * 1_100_000), reply({}), shaped=False)
    call = bench.call()
    assert call.resolved is not None
    assert call.resolved.divided is not None
    ((other, percent),) = call.resolved.divided.shadow
    other = replace(other, serving=ServingSettings(streaming=True))
    call.resolved = replace(call.resolved, divided=replace(call.resolved.divided, shadow=((other, percent),)))
    bench.copies.answered(call, reply({}), shaped=True)
    bench.busy = True
    for _ in range(70):
        bench.copies.answered(bench.call(), reply({}), shaped=False)
    counts = await bench.done()
    for _ in range(20):
        counts = await bench.done()
    assert counts.dropped == {"too_large": 1, "other_form": 1, "full": 6, "busy": 64}
    assert bench.sent.bodies == []


async def test_percent(bench: Bench) -> None:
    """As many in a hundred are drawn as was asked."""
    for _ in range(50):
        for _ in range(20):
            bench.copies.answered(bench.call(percent=25), reply({"label": "a"}), shaped=False)
        await bench.done()
    drawn = (await bench.done()).answered
    assert 170 <= drawn <= 330  # 5.8 standard deviations of 13.7


async def test_values_are_told_where_bodies_are_kept(bench: Bench) -> None:
    """Examples quote answers only where bodies of both versions are kept, as they are."""
    for serving, quoted in (
        (KEPT, True),
        (ServingSettings(observe="metadata"), False),
        (ServingSettings(observe="bodies", observe_redact=("label",)), False),
        (ServingSettings(observe="bodies", observe_redact=("header:x-request-id",)), False),
    ):
        bench.copies.answered(bench.call(serving), reply({"label": "secret"}), shaped=False)
        example = (await bench.done()).examples[-1]
        assert (example.kind, "secret" in (example.text or "")) == ("decision", quoted)
        assert (example.request_id is None) == ("header:x-request-id" in serving.observe_redact)
    counts = await bench.done()
    assert (sum(counts.decisions.values()), counts.fields["label"]) == (1, 4)


async def test_streams_count_without_comparison(bench: Bench) -> None:
    """Answers in pieces, or too large, say whether they failed and how long they took; nothing is compared."""
    streamed = replace(reply({}), data=None)
    bench.copies.answered(bench.call(), streamed, shaped=False)
    bench.copies.answered(bench.call(), reply("x" * 1_100_000), shaped=False)
    counts = await bench.done()
    assert (counts.answered, counts.compared, counts.not_comparable) == (2, 0, 2)
    assert {tuple(said.values()) for *_, said in bench.pairs.told} == {(None, None)}


async def test_large_answers_are_compared_elsewhere(bench: Bench) -> None:
    """What takes long to compare does not hold up the event loop."""
    large = {"label": "a", "text": "x" * 10_000}
    bench.sent.came = came(large)
    bench.copies.answered(bench.call(), reply(large), shaped=False)
    async with asyncio.timeout(30):
        while (await bench.done()).compared == 0:
            await asyncio.sleep(0.01)
    assert (await bench.done()).equal == 1
    await bench.converters.aclose()


async def test_counts_reach_the_store_whatever_answers_are_lost(bench: Bench) -> None:
    """One process's counts are written over; lost answers, and an object that was removed, change nothing of that."""
    store = LossyStore(bench.store, chance=0.5)
    bench.book._store = cast("ObjectStore", store)
    counts = bench.book.run("intent", "PROD", "1.0", TRAFFIC).of("1.1")
    for number in range(1, 31):
        counts.answered = number
        await bench.book.write()
        if number == 15:
            for key in list(bench.store.keys("rollouts/")):
                bench.store.delete(key)
    store._chance = 0.0
    await bench.book.write()
    assert store.lost > 3
    (key,) = bench.store.keys("rollouts/intent/")
    kept = ProcessCounts.model_validate_json(bench.store.get(key).data)
    assert (kept.label, kept.base, kept.versions["1.1"].answered) == ("PROD", "1.0", 30)
    bench.book.run("intent", "PROD", "1.0", TRAFFIC).used_at -= 3601
    await bench.book.write()  # nothing is counted for an hour: it is forgotten, and stays where it is kept
    bench.book.run("intent", "PROD", "1.0", TRAFFIC).of("1.1").answered = 1
    await bench.book.write()
    found = [bench.store.get(key).data for key in bench.store.keys("rollouts/intent/")]
    assert sorted(ProcessCounts.model_validate_json(data).versions["1.1"].answered for data in found) == [1, 30]
