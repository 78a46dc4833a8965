"""Rollouts that go by feedback are looked at in a process that stays, and a policy's percents are moved."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from marway.errors import MarwayError
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.registry.encoding import decode
from marway.resolve.reader import RegistryReader
from marway.resolve.resolver import Resolver
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.duties import rollout_quality
from marway_gateway.duties.rollout_quality import INTERVAL_S, RolloutQualityDuty
from marway_observations.rollouts.results import Comparison, Looked, RolloutQuality, StepCounts, quality_key
from support.registry import publish


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(DirectoryStore(tmp_path / "registry"))
    made.create()
    for version in ("1.0", "1.1"):
        publish(made, tmp_path, version=version, serving={"quality": [{"kind": "correct"}]})
    made.release("intent", "1.0", label="PROD", by="test")
    return made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def duty(registry: Registry, clock: Clock) -> AsyncIterator[Callable[..., RolloutQualityDuty]]:
    """Makes a duty; with a script, that runs in the place of the process."""
    reader = RegistryReader(registry, threads=1)
    resolver = Resolver(reader, state_ttl_s=2, state_max_stale_s=60, negative_ttl_s=1, wait_s=5)
    writer = RegistryWriter(registry, resolver)
    made: list[RolloutQualityDuty] = []

    def make(script: str | None = None) -> RolloutQualityDuty:
        one = RolloutQualityDuty(writer, observations=None, disk_bytes=10**9, clock=clock)
        if script is not None:
            one._command = [sys.executable, "-I", "-S", "-c", script]
        made.append(one)
        return one

    yield make
    for each in made:
        each.close()
    await writer.aclose()
    await resolver.aclose()
    await reader.aclose()


Make = Callable[..., RolloutQualityDuty]


def started(registry: Registry, **asked: object) -> str:
    change = registry.start_rollout("intent", "1.1", label="PROD", by="test", **asked)  # type: ignore[arg-type]
    rollout = change.state.traffic["PROD"].rollout
    assert rollout is not None
    return rollout


def answering(found: str) -> str:
    """Return a script that answers each line alike."""
    return f"import sys\nfor line in sys.stdin:\n  print({found!r}, flush=True)"


async def test_it_looks_while_a_rollout_goes_by_feedback_and_then_ends(
    duty: Make, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real process writes what it found; it stays from look to look, and ends some looks after the last rollout."""
    monkeypatch.setattr(rollout_quality, "_KEPT", 2)
    one = duty()
    assert await one.run() == INTERVAL_S
    assert one._child is None  # nobody needs it
    rollout = started(registry, guards={"quality": None})
    assert await one.run() >= INTERVAL_S
    key = quality_key("intent", rollout)
    found = decode(RolloutQuality, registry.store.get(key).data, source=key).guard
    assert found is not None
    assert found.kind == "correct"
    child = one._child
    assert child is not None
    await one.run()
    assert one._child is child
    registry.abort_rollout("intent", label="PROD", by="test")
    await one.run()
    await one.run()
    assert one._child is None
    with pytest.raises(ProcessLookupError):
        os.kill(child._process.pid, 0)


async def test_rollouts_that_do_not_go_by_feedback_are_nobodys_matter(duty: Make, registry: Registry) -> None:
    """No process is started for them."""
    started(registry, guards={"errors": None})
    one = duty("raise SystemExit('started')")
    assert await one.run() == INTERVAL_S


async def test_a_process_that_ends_says_why_and_is_started_anew(duty: Make, registry: Registry) -> None:
    """The words of a failed look are its process's; the next look has another process."""
    started(registry, guards={"quality": None})
    one = duty("import sys; print('no memory is left', file=sys.stderr)")
    for _ in range(2):
        with pytest.raises(MarwayError, match=r"ended: no memory is left"):
            await one.run()
        assert one._child is None


async def test_looks_take_a_tenth_of_a_processor(duty: Make, registry: Registry) -> None:
    """A look that took two seconds is followed by eighteen of rest."""
    started(registry, guards={"quality": None})
    assert await duty(answering(Looked(cpu_s=2.0).model_dump_json())).run() == pytest.approx(18.0)


async def test_thompson_moves_percents_once_a_step_time(duty: Make, registry: Registry, clock: Clock) -> None:
    """Percents follow the scores, at most once in the step's time, between floor and cap, each by one history entry."""
    rollout = started(
        registry, guards={"errors": None}, policy="thompson", floor=5, cap=60, steps=(20,), step_time_s=30
    )
    reward = Comparison(
        metric="mean",
        kind="score",
        steps=(StepCounts(step=0, share=0.2, base={0: 500, 8: 500}, candidate={0: 200, 8: 50}),),
    )
    quality = RolloutQuality(at="2026-11-30T12:00:00Z", reward=reward)  # type: ignore[arg-type]
    one = duty(answering(Looked(cpu_s=0, found={rollout: quality}).model_dump_json()))
    percents = []
    for _ in range(5):
        await one.run()
        percents.append(registry.state("intent").traffic["PROD"].percent)
        clock.now += 20
    assert percents == [20, 20, 60, 60, 60]
    newest = registry.state("intent").history[-1]
    assert newest.rollout is not None
    assert (newest.rollout.action, newest.rollout.percent) == ("weights", 60)
    assert "by 1250 scores" in (newest.rollout.reason or "")
