"""Several gateway processes watch a rollout, and what they find is done once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from marway.errors import AnswersDiffer, LoadFailed, MarwayError, NoPodAvailable, RegistryUnavailable
from marway.objects import DirectoryStore, ObjectStore
from marway.records import HistoryEntry
from marway.registry import Registry
from marway.registry.encoding import encode
from marway.registry.keys import state_key
from marway.resolve import RegistryReader, Resolver
from marway.wire.pods import ModelStatus, PodStatus
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.placement import Ejection, Pod, PodSet
from marway_gateway.settings import PodAddress
from marway_gateway.traffic.evidence import Side
from marway_gateway.traffic.rollouts.acting import Acting
from marway_gateway.traffic.rollouts.candidate import CandidateLoads
from marway_gateway.traffic.rollouts.exchange import EvidenceDocument, Exchange
from marway_gateway.traffic.rollouts.finding import Finding
from marway_gateway.traffic.rollouts.metrics import RolloutMetrics
from marway_gateway.traffic.rollouts.rollouts import Rollouts
from marway_gateway.traffic.rollouts.running import Running
from marway_gateway.traffic.rollouts.watcher import Watcher, exchange_s
from support.label_moves import LossyStore
from support.registry import publisher

GUARDS = {"errors": None, "finite": None}
FINE = Side(failed=False, finite=True, model_s=0.01)
FAILED = Side(failed=True, finite=None, model_s=0.01)
Start = Callable[..., "Process"]


class Loads:
    """What loads come to: the next of the errors, or nothing."""

    def __init__(self) -> None:
        self.errors: list[MarwayError] = []
        self.proofs: list[MarwayError] = []
        self.asked: list[bool] = []

    async def load(self, record: Any, serving: Any, *, prove: bool, pod: None, deadline: Any) -> tuple[()]:
        self.asked.append(prove)
        errors = self.proofs if prove else self.errors
        if errors:
            raise errors.pop(0)
        return ()


class Process:
    """One gateway process's part of a rollout of `intent` to PROD, with a clock that the test moves."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self.now = 0.0
        self.registry = Registry(store)
        self.loads = Loads()
        self.rollouts = Rollouts()
        self.metrics = CollectorRegistry()
        self.reader = RegistryReader(self.registry, threads=1, clock=lambda: self.now)
        self.resolver = Resolver(
            self.reader, state_ttl_s=0.5, state_max_stale_s=None, negative_ttl_s=1, wait_s=10, clock=lambda: self.now
        )
        self.writer = RegistryWriter(self.registry, self.resolver)
        told = RolloutMetrics(self.metrics)
        pods = PodSet((), ejection=Ejection(after_failures=5, eject_s=1, eject_max_s=1))
        candidates = CandidateLoads(self.resolver, self.loads, pods, clock=lambda: self.now)  # type: ignore[arg-type]
        self.watcher = Watcher(
            self.rollouts,
            resolver=self.resolver,
            exchange=Exchange(store, name),
            candidates=candidates,
            acting=Acting(self.writer, candidates, told),
            pods=pods,
            metrics=told,
            clock=lambda: self.now,
        )

    @property
    def running(self) -> Running:
        (running,) = self.rollouts.running
        return running

    def join(self) -> None:
        self.rollouts.of("intent", "PROD", self.registry.state("intent").traffic["PROD"])

    def count(self, pairs: int, *, failing: int = 0) -> None:
        """Count callers' answers, and pairs, of which the candidate failed in some."""
        running = self.running
        step, share = running.traffic.step, running.traffic.percent / 100
        for at in range(pairs):
            candidate = FAILED if at < failing else FINE
            running.tally.live(step, share, FINE, candidate=False)
            running.tally.pair(step, FINE, candidate, shape_differs=False, disagrees=False)
        running.tally.live(step, share, FINE, candidate=True)

    async def look(self, *, after_s: float = 2.0) -> None:
        """Look once, and wait for what that begins."""
        self.now += after_s
        await self.watcher.look()
        for running in self.rollouts.running:
            for task in (running.acting, running.loading):
                if task is not None:
                    await asyncio.wait({task})
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        await self.watcher.aclose()
        await self.writer.aclose()
        await self.resolver.aclose()
        await self.reader.aclose()


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """`intent` with versions 1 and 2; PROD is at 1."""
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish = publisher(registry, tmp_path)
    for version in "12":
        publish("intent", version)
    registry.release("intent", "1", by="test")
    return registry


@pytest.fixture
async def start(registry: Registry) -> AsyncIterator[Start]:
    """Starts processes, each with a store of its own over the same objects."""
    processes: list[Process] = []

    def make(name: str, store: ObjectStore | None = None) -> Process:
        processes.append(Process(store or DirectoryStore(Path(registry.url.removeprefix("file://"))), name))
        return processes[-1]

    yield make
    for process in processes:
        await process.aclose()


def begin(registry: Registry, **changes: Any) -> str:
    asked = {"steps": (1, 5), "step_time_s": 60, "guards": GUARDS, "label": "PROD", "by": "ann", **changes}
    change = registry.start_rollout("intent", "2", **asked)
    assert change.entry.rollout is not None
    return change.entry.rollout.id or ""


def told(registry: Registry) -> list[tuple[str, str | None]]:
    """What the history says of rollouts, oldest first."""
    entries = [entry.rollout for entry in _entries(registry) if entry.rollout is not None]
    return [(entry.action, entry.guard) for entry in entries]


def _entries(registry: Registry) -> list[HistoryEntry]:
    return list(registry.history("intent"))[::-1]


async def test_a_bad_candidate_is_rolled_back(registry: Registry, start: Start) -> None:
    """It is gone with the next look after the evidence, and why is in the history and beside it in full."""
    run = begin(registry)
    one = start("one")
    one.join()
    one.count(300, failing=60)
    await one.look()
    assert told(registry) == [("start", None), ("roll_back", "errors")]
    assert registry.state("intent").traffic == {}
    assert registry.state("intent").labels["PROD"] == "1"
    newest = _entries(registry)[-1]
    report = registry.report("intent", run, newest.op_id)
    assert report is not None
    assert report.evidence["errors"].verdict == "worse"
    assert report.guard == "errors"
    await one.look()
    assert one.rollouts.running == []
    of = {"model": "intent", "label": "PROD", "action": "roll_back"}
    assert one.metrics.get_sample_value("marway_gateway_rollout_changes_total", of) == 1


async def test_a_good_candidate_is_promoted(registry: Registry, start: Start) -> None:
    """Step by step, each with its golden answers proved again, until the label moves."""
    begin(registry)
    one = start("one")
    one.join()
    for _ in range(20):
        if one.rollouts.running:
            one.count(300)
        await one.look()
    assert told(registry) == [("start", None), ("step", None), ("promote", None)]
    assert registry.state("intent").labels["PROD"] == "2"
    assert one.loads.asked.count(True) == 2


async def test_evidence_of_several_adds_up(registry: Registry, start: Start) -> None:
    """What no process could say alone, they say together, and one of them does it."""
    begin(registry)
    processes = [start(name) for name in ("one", "two", "three")]
    for each in processes:
        each.join()
        each.count(120, failing=8)
    for _ in range(2):
        for each in processes:
            await each.look()
    assert told(registry) == [("start", None), ("roll_back", "errors")]


async def test_all_at_once(registry: Registry, start: Start) -> None:
    """Of many that have the same verdict in the same moment, one makes the change."""
    begin(registry)
    processes = [start(f"p{at}") for at in range(4)]
    for each in processes:
        each.join()
        each.count(300, failing=60)
    await asyncio.gather(*(each.look() for each in processes))
    assert told(registry) == [("start", None), ("roll_back", "errors")]


async def test_fault_lost_replies_in_a_rollout(registry: Registry, start: Start) -> None:
    """A store that says of writes that were done that they were not: the rollout takes each step once all the same."""
    begin(registry)
    one = start("one", LossyStore(DirectoryStore(Path(registry.url.removeprefix("file://"))), 0.5))  # type: ignore[arg-type]
    one.join()
    for _ in range(40):
        if one.rollouts.running:
            one.count(300)
        await one.look()
    assert told(registry) == [("start", None), ("step", None), ("promote", None)]


async def test_one_that_begins_in_the_middle(registry: Registry, start: Start) -> None:
    """It has the counts of one that was killed, and goes on with the time that this one had watched the step."""
    begin(registry, guards={"errors": None})
    killed = start("killed")
    killed.join()
    killed.count(2000)
    for _ in range(3):
        await killed.look()
        killed.count(1)
    watched_s = killed.running.step_s
    assert watched_s == pytest.approx(4)
    later = start("later")
    later.join()
    await later.look()
    assert watched_s - 2 <= later.running.step_s <= watched_s  # the last document is up to 2 s old
    evidence = await later.watcher.evidence(later.running)
    assert evidence["errors"].verdict == "not_worse"
    for _ in range(5):
        await later.look()
    assert told(registry) == [("start", None), ("step", None)]


async def test_time_is_not_counted_twice(registry: Registry, start: Start) -> None:
    """However many processes watch, and read what the others say, a step lasts as long as it lasts."""
    begin(registry)
    processes = [start(name) for name in ("one", "two", "three")]
    for each in processes:
        each.join()
    for at in range(30):
        each = processes[at % 3]
        for other in processes:
            other.now = at
        each.count(1)
        await each.look(after_s=0)
    assert processes[0].running.step_s == pytest.approx(29, abs=3)


def memory_of(version: str, size_bytes: int) -> ModelStatus:
    return ModelStatus(
        id=version, name="intent", version=version, state="ready", workers=2, memory_bytes=size_bytes, weights_bytes=10
    )


def pod_with(*models: ModelStatus) -> Pod:
    pod = Pod(PodAddress("a", "http://127.0.0.1:1"))
    pod.status = PodStatus(name="a", boot_id="1", backend="torchserve", ready=True, models=models)
    return pod


async def test_memory_of_one_worker(registry: Registry, start: Start) -> None:
    """What one worker takes is looked at, without what workers share, and shared with other processes."""
    begin(registry, guards={"memory": None})
    one, other = start("one"), start("other")
    for each in (one, other):
        each.join()
    one.running.sample_memory([pod_with(memory_of("1", 110), memory_of("2", 210))])
    await one.look()
    await other.look()
    assert [tuple(each) for each in other.running.memory_of_all()] == [(0.0, 100, 50)]
    for _ in range(1000):
        one.running.sample_memory([pod_with(memory_of("2", 210))])
    assert 60 < len(one.running.memory) <= 128
    assert set(await one.watcher.evidence(one.running)) == {"memory"}


async def test_a_guard_that_nothing_can_be_judged_by(registry: Registry, start: Start) -> None:
    """Pods that do not say what a version takes leave the guard of memory out, and the others decide."""
    begin(registry, guards={"errors": None, "memory": None})
    one = start("one")
    one.join()
    assert set(await one.watcher.evidence(one.running)) == {"errors", "memory"}
    one.running.sample_memory([pod_with(memory_of("2", 0))])
    assert set(await one.watcher.evidence(one.running)) == {"errors"}


async def test_the_store_away(registry: Registry, start: Start) -> None:
    """What is counted while the registry is away is judged and followed when it is back."""
    begin(registry)
    store = Away(DirectoryStore(Path(registry.url.removeprefix("file://"))))
    one = start("one", store)  # type: ignore[arg-type]
    one.join()
    await one.look()
    store.away = True
    one.count(300, failing=60)
    for _ in range(3):
        await one.look()
    assert told(registry) == [("start", None)]
    store.away = False
    await one.look()
    assert told(registry) == [("start", None), ("roll_back", "errors")]


class Away:
    """A store that can be away."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.away = False

    def __getattr__(self, name: str) -> Any:
        if self.away and name not in ("url", "parallel_reads"):
            raise RegistryUnavailable("the store is away")
        return getattr(self._store, name)


async def test_a_stopped_process_has_not_watched(registry: Registry, start: Start) -> None:
    """A process that was stopped for an hour does not take the step's time for over; nor does a clock that stands."""
    begin(registry)
    one = start("one")
    one.join()
    await one.look()
    await one.look(after_s=3600)
    assert one.running.step_s <= 5
    for _ in range(50):
        await one.look(after_s=0)
    assert told(registry) == [("start", None)]


async def test_unclear_at_its_end(registry: Registry, start: Start) -> None:
    """The end of a step's time without a verdict is for a person; going on gives it all of its time again."""
    run = begin(registry, step_time_s=6)
    one = start("one")
    one.join()
    for _ in range(5):
        await one.look()
    assert told(registry) == [("start", None), ("pause", None)]
    assert "errors" in (registry.state("intent").traffic["PROD"].reason or "")
    assert one.metrics.get_sample_value("marway_gateway_rollout_paused", {"model": "intent", "label": "PROD"}) == 1
    registry.resume_rollout("intent", label="PROD", rollout=run, by="ann")
    await one.look()
    assert one.running.step_s <= 2
    assert told(registry)[-1] == ("resume", None)


async def test_golden_answers_that_differ(registry: Registry, start: Start) -> None:
    """A candidate that answers its golden examples otherwise by now is rolled back in place of the next step."""
    begin(registry)
    one = start("one")
    one.loads.proofs = [LoadFailed("no room"), AnswersDiffer("it says no")]
    one.join()
    one.count(2000)
    for _ in range(8):
        await one.look(after_s=4)
    assert told(registry) == [("start", None), ("roll_back", "golden")]


async def test_no_pod_to_prove_it(registry: Registry, start: Start) -> None:
    """While no pod can prove a candidate again it stays at its step; at the end of its time a person is to look."""
    begin(registry, step_time_s=30)
    one = start("one")
    one.loads.proofs = [NoPodAvailable("none is there")] * 99
    one.join()
    one.count(2000)
    for _ in range(20):
        await one.look(after_s=4)
    assert told(registry) == [("start", None), ("pause", None)]
    assert "no pod" in (registry.state("intent").traffic["PROD"].reason or "")


async def test_a_label_that_was_moved_all_the_same(registry: Registry, start: Start) -> None:
    """Where a Marway that knows of no rollouts moved the label, promoting is refused, and not tried all the time."""
    run = begin(registry, steps=(5,))
    state, etag = registry._state_and_tag("intent")
    moved = state.model_copy(update={"labels": {"PROD": "2"}})
    registry.store.replace(state_key("intent"), encode(moved, key=state_key("intent")), etag=etag or "")
    one = start("one")
    one.join()
    one.count(2000)
    for _ in range(40):
        await one.look()
    assert told(registry)[0] == ("start", None)
    assert len(list(registry.store.keys(f"rollouts/intent/{run}/reports/"))) < 10


async def test_one_that_cannot_be_loaded(registry: Registry, start: Start) -> None:
    """A candidate that no pod has ready is loaded again; one that cannot be by its own fault is rolled back."""
    begin(registry)
    one = start("one")
    one.loads.errors = [LoadFailed("it raises")] * 3
    one.join()
    for _ in range(20):
        await one.look(after_s=4)
    assert one.loads.asked == [False] * 3
    assert told(registry) == [("start", None), ("roll_back", "load")]


async def test_in_line(registry: Registry, start: Start) -> None:
    """What may wait is done by one process after the other, so that golden answers are proved once."""
    begin(registry)
    processes = [start(name) for name in ("a", "b")]
    for each in processes:
        each.join()
        each.count(1000)
    for _ in range(7):
        await asyncio.gather(*(each.look() for each in processes))
    assert told(registry) == [("start", None), ("step", None)]
    assert [each.loads.asked.count(True) for each in processes] == [1, 0]


async def test_found(registry: Registry, start: Start) -> None:
    """Who does the background duties watches rollouts that nobody has requests of, and no others."""
    begin(registry)
    one = start("one")
    finding = Finding(registry, one.rollouts)
    await finding.run()
    assert one.running.traffic.candidate == "2"
    registry.abort_rollout("intent", label="PROD", by="ann")
    await one.look()
    await finding.run()
    assert one.rollouts.running == []
    finding.close()


async def test_damaged_counts_are_left_out(registry: Registry, start: Start) -> None:
    """A document that cannot be believed is passed over, and the others count."""
    run = begin(registry)
    one, other = start("one"), start("other")
    for each in (one, other):
        each.join()
        each.count(10)
        await each.look()
    key = f"rollouts/intent/{run}/evidence/other.json"
    registry.store.replace(key, b"{}x", etag=registry.store.tag(key) or "")
    await one.look()
    assert one.running.others == {}
    late = EvidenceDocument(process="late", tally={"format": 99})
    Exchange(registry.store, "late").write("intent", run, late)
    await one.look()
    assert (await one.watcher.evidence(one.running))["errors"].counts["pairs"] == 10


def test_less_often_with_many() -> None:
    """With many processes, each of which reads all others, documents go round less often."""
    assert [exchange_s(each) for each in (1, 4, 40, 1000)] == [2, 2, 10, 30]
