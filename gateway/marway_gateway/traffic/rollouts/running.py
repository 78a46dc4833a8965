"""One rollout as this process has it: what it counted itself, what others had counted, and for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, NamedTuple

from marway.traffic import Traffic, run_of
from marway.wire.rollouts import EvidencePoint, GuardEvidence
from marway_gateway.placement.pod import Pod
from marway_gateway.traffic.evidence import Evidence, MemorySample, Tally
from marway_gateway.traffic.rollouts.exchange import EvidenceDocument
from marway_observations.rollouts.results import RolloutQuality

__all__ = ["Course", "Failure", "Running"]

_WATCHED_MAX_S: Final = 5.0
"""Longest time between two looks that counts as watched: a process that was stopped has not watched meanwhile."""
_SAMPLES_MAX: Final = 128
"""Samples of memory that one process keeps of a rollout; when there are more, every second one is given up."""


_POINTS_MAX: Final = 128
_LEAST_S: Final = 1.0


class Course:
    """How the guards stood, at even distances of time: of too many points every second one goes, and half as many come.

    Attributes:
        points: From the first to the newest.
    """

    def __init__(self) -> None:
        self.points: list[EvidencePoint] = []
        self._every_s = _LEAST_S
        self._next_at = float("-inf")

    def add(self, at: datetime, step: int, percent: float, evidence: Mapping[str, GuardEvidence]) -> None:
        """Take in how the guards stand, unless that was taken in just now; what a new step begins with always is."""
        now = at.timestamp()
        if now < self._next_at and self.points and self.points[-1].step == step:
            return
        self._next_at = now + self._every_s
        self.points.append(EvidencePoint.of(at, step, percent, evidence))
        if len(self.points) > _POINTS_MAX:
            del self.points[1::2]
            self._every_s *= 2


class Failure(NamedTuple):
    """What ends a rollout whatever was counted: by what it was found, and what was found."""

    guard: str
    reason: str


@dataclass(slots=True)
class Running:
    """A rollout that runs, or shadow copies that are made.

    Attributes:
        model, label: Whose requests.
        traffic: How they are divided now.
        tally: What this process counted.
        memory: What this process saw of the memory that versions take, as `EvidenceDocument` has it.
        memory_unknown: Whether the pods that have the candidate do not say what it takes.
        others: What other processes had counted when it was last read, by process.
        quality: What feedback says, as it was last read.
        course: How its guards stood, as this process saw it.
        watched_s: How long each turn of a step was watched, by anybody, in seconds.
        looked_at: When it was last looked at here; as all times below, in monotonic seconds.
        exchanged_at: When documents were last written and read.
        written: What was last stored of it.
        written_at: When.
        alive: When each other process's document last said something new.
        judge_again_at: Before this it is not judged again.
        decided: What is to be done, and since when that is so.
        refused: Attempts to do it that came to nothing, in a row.
        act_again_at: Before this none is made.
        acting: What is being done about it, if anything is.
        loading: The load of its candidate, if one runs.
        load_failures: Loads in a row that failed by the candidate's own fault.
        load_again_at: Before this no load is tried.
        failure: What ends it whatever was counted.
    """

    model: str
    label: str
    traffic: Traffic
    tally: Tally
    memory: list[tuple[float, int, int | None]] = field(default_factory=list)
    memory_unknown: bool = False
    others: dict[str, EvidenceDocument] = field(default_factory=dict)
    quality: RolloutQuality | None = None
    course: Course = field(default_factory=Course)
    watched_s: dict[str, float] = field(default_factory=dict)
    looked_at: float | None = None
    exchanged_at: float = float("-inf")
    written: EvidenceDocument | None = None
    written_at: float = float("-inf")
    alive: dict[str, float] = field(default_factory=dict)
    judge_again_at: float = float("-inf")
    decided: tuple[str, float] | None = None
    refused: int = 0
    act_again_at: float = float("-inf")
    acting: asyncio.Task[bool] | None = None
    loading: asyncio.Task[None] | None = None
    load_failures: int = 0
    load_again_at: float = float("-inf")
    failure: Failure | None = None

    @property
    def run(self) -> str:
        """What its evidence is kept under."""
        return run_of(self.label, self.traffic)

    @property
    def turn(self) -> str:
        """The step it is at, and which turn of it: one that goes on after a pause has its whole time again."""
        return f"{self.traffic.step}@{self.traffic.step_began:%Y%m%dT%H%M%S%f}"

    @property
    def step_s(self) -> float:
        """How long this turn of the step was watched, in seconds, as far as is known here."""
        turn = self.turn
        theirs = (each.watched_s.get(turn, 0.0) for each in self.others.values())
        return max(self.watched_s.get(turn, 0.0), *theirs, 0.0)

    @property
    def all_s(self) -> float:
        """How long all of it was watched, in seconds, as far as is known here."""
        known = [self.watched_s, *(each.watched_s for each in self.others.values())]
        return sum(max(each.get(turn, 0.0) for each in known) for turn in set().union(*known))

    def watched(self, now: float) -> None:
        """Take in that it is looked at, at ``now`` in monotonic seconds, after what others stored was read.

        Who sees a turn for the first time goes on from the longest that anybody watched it, and counts by its own clock
        from then on: were it taken over again and again, what passed between two looks would count twice.
        """
        before, self.looked_at = self.looked_at, now
        if self.traffic.status != "running":
            return
        turn = self.turn
        if turn not in self.watched_s:
            self.watched_s[turn] = self.step_s
        elif before is not None:
            self.watched_s[turn] += min(max(0.0, now - before), _WATCHED_MAX_S)

    def sample_memory(self, pods: Iterable[Pod]) -> None:
        """Take in what pods say of the memory of its versions: of one worker, without what workers share."""
        candidate = base = 0
        unknown = False
        for pod in pods:
            for model in pod.status.models if pod.status is not None else ():
                if model.name != self.model or model.state != "ready" or not model.workers:
                    continue
                of_one = max(0, model.memory_bytes - model.weights_bytes) // model.workers
                if model.version == self.traffic.candidate:
                    candidate, unknown = max(candidate, of_one), not model.memory_bytes
                elif model.version == self.traffic.base:
                    base = max(base, of_one)
        self.memory_unknown = unknown and not candidate and not self.memory
        if candidate:
            self.memory.append((round(self.all_s, 1), candidate, base or None))
            if len(self.memory) > _SAMPLES_MAX:
                del self.memory[1::2]

    def memory_of_all(self) -> Sequence[MemorySample]:
        """Return what all processes saw of that, in order of time: one that starts in the middle goes on from there."""
        seen = [*self.memory, *(each for other in self.others.values() for each in other.memory)]
        return [MemorySample(*each) for each in sorted(seen, key=lambda each: each[0])]

    def document(self, process: str) -> EvidenceDocument:
        """Return what this process counted."""
        return EvidenceDocument(
            process=process,
            watched_s=dict(self.watched_s),
            tally=Evidence.model_validate(self.tally.document()),
            memory=tuple(self.memory),
        )
