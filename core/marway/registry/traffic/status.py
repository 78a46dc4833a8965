"""How a rollout stands, or how it ended, by the model's state and history and what is stored beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import Field

from marway.errors import RolloutNotFound
from marway.objects import ObjectMissing
from marway.records import HistoryEntry
from marway.refs import DEFAULT_LABEL, check_label
from marway.registry import history, keys
from marway.registry.reading import Reading
from marway.registry.traffic.reports import RolloutReports
from marway.stored import Frozen
from marway.traffic import RolloutAction, RolloutRecord, Traffic
from marway.wire.rollouts import GuardEvidence

__all__ = ["ReadingRollouts", "RolloutMove", "RolloutState", "RolloutStatus"]

RolloutState = Literal["running", "paused", "promoted", "rolled_back", "aborted"]
_ENDS: Final[Mapping[RolloutAction, RolloutState]] = {
    "promote": "promoted",
    "roll_back": "rolled_back",
    "abort": "aborted",
}


class RolloutMove(Frozen):
    """One change of a rollout, in the words of its history."""

    at: datetime
    by: str
    action: RolloutAction
    step: int
    percent: float
    guard: str | None = None
    reason: str | None = None
    generation: int
    op_id: str


class RolloutStatus(Frozen):
    """How a rollout stands, or how it ended.

    Attributes:
        model, label, rollout: Which.
        state: Whether it runs, or how it ended.
        base, candidate: The label's version at its beginning, and the one that is to take its place.
        steps, step, percent: Which of the steps it is at, or was at its end, and how many requests in a hundred go to
            the candidate now.
        step_time_s: How long a step may take, in seconds.
        step_s: How long this step was watched, in seconds; None where that is not known here.
        sticky, shadow_percent, policy, floor, cap, guards, alpha: As it was started, or is now.
        by, note: Who started it, and why.
        began, step_began, ended: When.
        guard, reason: Which guard decided what was done last, and why; why it is paused.
        evidence: How each guard stands, by its name; at its end how it stood when that was decided.
        evidence_missing: Why there is no evidence here; None where there is.
        changes: What was done to it, oldest first.
    """

    model: str
    label: str
    rollout: str
    state: RolloutState
    base: str | None
    candidate: str | None
    steps: tuple[float, ...] = ()
    step: int
    percent: float
    step_time_s: float | None = None
    step_s: float | None = None
    sticky: str | None = None
    shadow_percent: float = 0.0
    policy: str | None = None
    floor: float | None = None
    cap: float | None = None
    guards: Mapping[str, float | None] = Field(default_factory=dict)
    alpha: float | None = None
    by: str
    note: str | None = None
    began: datetime
    step_began: datetime | None = None
    ended: datetime | None = None
    guard: str | None = None
    reason: str | None = None
    evidence: Mapping[str, GuardEvidence] = Field(default_factory=dict)
    evidence_missing: str | None = None
    changes: tuple[RolloutMove, ...] = ()


class ReadingRollouts(RolloutReports, Reading):
    """Reads rollouts that run, and that ended."""

    def rollout_status(
        self, name: str, *, label: str = DEFAULT_LABEL, rollout: str | None = None
    ) -> tuple[RolloutStatus, Traffic | None]:
        """Return how a label's newest rollout stands, or the one with this id, and how requests are divided by it.

        What is counted of one that runs only gateways know how to judge: its evidence is left empty.

        Raises:
            RolloutNotFound: There was none, or not that one.
        """
        check_label(label)
        model = self.find(name)
        state = self.state(model)
        entries: list[HistoryEntry] = []
        for entry in history.newest_first(self._store, model, state):
            done = entry.rollout
            if entry.label != label or done is None or done.id is None:
                continue
            rollout = rollout or done.id
            if done.id == rollout:
                entries.append(entry)
                if done.action == "start":
                    break
        if not entries or rollout is None:
            which = f"{rollout} " if rollout else ""
            how = "" if rollout else f": `marway rollout start {model} VERSION --label {label}` begins one"
            raise RolloutNotFound(f"there was no rollout {which}of {model} to {label}{how}", model=model)
        entries.reverse()
        traffic = state.traffic.get(label)
        running = traffic if traffic is not None and traffic.rollout == rollout else None
        return self._status(model, label, rollout, entries, running), running

    def _status(
        self, model: str, label: str, rollout: str, entries: Sequence[HistoryEntry], running: Traffic | None
    ) -> RolloutStatus:
        first, last = entries[0], entries[-1]
        moves = tuple(_move(entry) for entry in entries)
        begun = running or self._written(model, rollout)
        facts: dict[str, Any] = {}
        if begun is not None:
            names = ("steps", "step_time_s", "sticky", "policy", "floor", "cap", "guards", "alpha")
            facts = {each: getattr(begun, each) for each in names}
            facts["shadow_percent"] = sum(rule.percent for rule in begun.shadow if rule.version == begun.candidate)
        if running is not None:
            facts["step_began"] = running.step_began
        else:
            facts |= {"ended": last.at, **self._decided_on(model, rollout, moves)}
        ended = _ENDS.get(moves[-1].action, "aborted")  # a Marway that knows of no rollouts took it away
        return RolloutStatus(
            model=model,
            label=label,
            rollout=rollout,
            state=ended if running is None else running.status,
            base=first.from_version,
            candidate=first.rollout.candidate if first.rollout is not None else None,
            step=moves[-1].step if running is None else running.step,
            percent=moves[-1].percent if running is None else running.percent,
            by=first.by,
            note=first.note,
            began=first.at,
            guard=moves[-1].guard,
            reason=running.reason if running is not None else moves[-1].reason,
            changes=moves,
            **facts,
        )

    def _written(self, model: str, rollout: str) -> Traffic | None:
        """Return how a rollout was to go; None once gc has taken that."""
        try:
            return self._read(RolloutRecord, keys.rollout_key(model, rollout)).traffic
        except ObjectMissing:
            return None

    def _decided_on(self, model: str, rollout: str, moves: Sequence[RolloutMove]) -> dict[str, Any]:
        """Return the evidence that was stored with the newest change that has some."""
        for move in reversed(moves):
            report = self.report(model, rollout, move.op_id)
            if report is None:
                continue
            return {"evidence": report.evidence, "step_s": report.step_s}
        return {"evidence_missing": "none was stored when it ended"}


def _move(entry: HistoryEntry) -> RolloutMove:
    assert entry.rollout is not None
    facts = entry.rollout.model_dump(exclude={"id", "candidate"})
    return RolloutMove(at=entry.at, by=entry.by, generation=entry.generation, op_id=entry.op_id, **facts)
