"""The course and the end of a rollout.

Whoever changes a rollout says which one, and at which step he saw it. Where it is not there any more, the change is
refused and nothing is written: of many gateways with one verdict, one applies it.

An entry of the history says what was done (`RolloutChange`) and is otherwise one of a label that stays, or, where the
candidate is promoted, of one that moves.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

from marway.errors import LabelProtected, StateConflict
from marway.records import HistoryEntry, ModelState
from marway.refs import DEFAULT_LABEL, check_label
from marway.registry.changes import Change
from marway.registry.moving import Moving
from marway.registry.traffic.entries import noted
from marway.registry.traffic.states import divided, labelled, paused, without_rollout
from marway.traffic import RolloutAction, RolloutChange, Traffic

__all__ = ["RollingOut"]

_Turn = Callable[[ModelState, Traffic, datetime], tuple[ModelState, RolloutAction]]
"""From a state, its rollout and the time to the state after it, and what was done."""


class RollingOut(Moving):
    """Moves rollouts on, and ends them.

    Every change takes `by`, who, and `reason`, why, for the history, and `op_id`, the caller's own name for the change:
    one that was made under it is not made again. `rollout` and `step` say what the caller saw; None leaves them open,
    for people. `guard` is which one decided. Each raises `StateConflict` where the rollout is over or not as it was
    seen, and `OutcomeUnknown` when the write's fate could not be found out.
    """

    def advance_rollout(
        self,
        name: str,
        *,
        label: str,
        rollout: str,
        step: int,
        guard: str | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Go on to the next step of a rollout that runs; where that is 100 %, the candidate is promoted.

        Where the label is protected and asks for more than is there, the rollout is paused instead, and says so.

        Raises:
            StateConflict: It is not at ``step`` any more, is paused, or is over.
        """

        def advance(state: ModelState, traffic: Traffic, at: datetime) -> tuple[ModelState, RolloutAction]:
            _expect_status(name, label, traffic, "running")
            if traffic.step + 1 >= len(traffic.steps) - 1:
                return _promoted(name, state, label, traffic), "promote"
            percent = traffic.steps[traffic.step + 1]
            moved = {"step": traffic.step + 1, "percent": percent, "step_began": at}
            return divided(state, label, traffic.model_copy(update=moved)), "step"

        return self._turn(
            name, label, "step", advance, rollout=rollout, step=step, guard=guard, reason=reason, by=by, op_id=op_id
        )

    def set_weights(
        self,
        name: str,
        *,
        label: str,
        rollout: str,
        percent: float,
        was: float | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Send another percent of the requests to the candidate of a rollout whose policy moves it.

        Args:
            name: The model.
            label: Which label.
            rollout: Which rollout.
            percent: Of the requests, so many in a hundred; kept between the rollout's floor and cap.
            was: Only if it is this much now.
            reason: Why.
            by: Who.
            op_id: The caller's name for the change.

        Raises:
            StateConflict: The rollout is over or paused, goes by steps, or is not at ``was``.
        """

        def weigh(state: ModelState, traffic: Traffic, _: datetime) -> tuple[ModelState, RolloutAction]:
            _expect_status(name, label, traffic, "running")
            if traffic.policy == "steps":
                raise StateConflict(f"the rollout of {name} {label} goes by steps: its percent is theirs", model=name)
            if was is not None and not math.isclose(was, traffic.percent):
                raise StateConflict(f"{name} {label} is at {traffic.percent:g} %, not at {was:g} %", model=name)
            bounded = min(max(percent, traffic.floor), traffic.cap)
            return divided(state, label, traffic.model_copy(update={"percent": bounded})), "weights"

        return self._turn(name, label, "weights", weigh, rollout=rollout, reason=reason, by=by, op_id=op_id)

    def pause_rollout(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        rollout: str | None = None,
        step: int | None = None,
        guard: str | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Let a rollout stay at its step until a person says how it goes on.

        Raises:
            StateConflict: It is over, at another step, or paused already.
        """

        def pause(state: ModelState, traffic: Traffic, _: datetime) -> tuple[ModelState, RolloutAction]:
            _expect_status(name, label, traffic, "running")
            return paused(state, label, traffic, reason or f"paused by {by}"), "pause"

        return self._turn(
            name, label, "pause", pause, rollout=rollout, step=step, guard=guard, reason=reason, by=by, op_id=op_id
        )

    def resume_rollout(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        rollout: str | None = None,
        step: int | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Let a paused rollout go on at its step, which has all of its time again.

        Raises:
            StateConflict: It is over, at another step, or not paused.
        """

        def resume(state: ModelState, traffic: Traffic, at: datetime) -> tuple[ModelState, RolloutAction]:
            _expect_status(name, label, traffic, "paused")
            on = {"status": "running", "reason": None, "step_began": at}
            return divided(state, label, traffic.model_copy(update=on)), "resume"

        return self._turn(name, label, "resume", resume, rollout=rollout, step=step, reason=reason, by=by, op_id=op_id)

    def promote_rollout(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        rollout: str | None = None,
        step: int | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """End a rollout, paused or not, by moving the label to its candidate.

        Raises:
            StateConflict: It is over or at another step, or the label is not at its base.
            LabelProtected: The label asks for more than is there.
        """

        def promote(state: ModelState, traffic: Traffic, _: datetime) -> tuple[ModelState, RolloutAction]:
            return _promoted(name, state, label, traffic), "promote"

        return self._turn(
            name, label, "promote", promote, rollout=rollout, step=step, reason=reason, by=by, op_id=op_id
        )

    def roll_back_rollout(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        rollout: str | None = None,
        step: int | None = None,
        guard: str | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """End a rollout, because its candidate is worse: every request goes to the base again.

        Raises:
            StateConflict: It is over or at another step.
        """
        return self._turn(
            name, label, "roll_back", _ended("roll_back", label),
            rollout=rollout, step=step, guard=guard, reason=reason, by=by, op_id=op_id,
        )  # fmt: skip

    def abort_rollout(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        rollout: str | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """End a rollout because a person wants that: every request goes to the base again.

        Raises:
            StateConflict: It is over.
        """
        return self._turn(
            name, label, "abort", _ended("abort", label), rollout=rollout, reason=reason, by=by, op_id=op_id
        )

    def _turn(
        self,
        name: str,
        label: str,
        action: RolloutAction,
        turn: _Turn,
        *,
        rollout: str | None,
        step: int | None = None,
        guard: str | None = None,
        reason: str | None = None,
        by: str,
        op_id: str | None,
    ) -> Change:
        check_label(label)
        model = self.find(name)

        def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            traffic = _expected(model, state, label, rollout, step)
            (after, done), why = turn(state, traffic, entry.at), reason
            if done == "promote":
                candidate = self.record(model, traffic.candidate or "")
                try:
                    after, entry = self._admitted(state, after, entry, candidate, label, movers=(by, traffic.by))
                except LabelProtected as exc:  # since the rollout was started: that is for people to settle
                    if action != "step":
                        raise
                    after, done, why = paused(state, label, traffic, exc.message), "pause", exc.message
            return after, noted(state, after, entry, done, guard=guard, reason=why)

        asked = RolloutChange(id=rollout, action=action)
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=reason, rollout=asked)
        with self._requesting_sign_off(model, label, by=by):
            return self._change(model, change, entry, new_op=op_id is None)


def _expected(model: str, state: ModelState, label: str, rollout: str | None, step: int | None) -> Traffic:
    traffic = state.traffic.get(label)
    if traffic is None or traffic.rollout is None:
        raise StateConflict(f"no rollout of {model} to {label} runs (any more): nothing changed", model=model)
    if rollout not in (None, traffic.rollout):
        raise StateConflict(
            f"another rollout of {model} to {label} runs now, of {traffic.candidate}: nothing changed", model=model
        )
    if step not in (None, traffic.step):
        raise StateConflict(
            f"the rollout of {model} to {label} is at step {traffic.step} ({traffic.percent:g} %) and not at step "
            f"{step}: nothing changed",
            model=model,
        )
    return traffic


def _expect_status(model: str, label: str, traffic: Traffic, wanted: str) -> None:
    if traffic.status != wanted:
        why = f": {traffic.reason}" if traffic.reason else ""
        raise StateConflict(
            f"the rollout of {model} to {label} is {traffic.status}, not {wanted}{why}; nothing changed", model=model
        )


def _promoted(model: str, state: ModelState, label: str, traffic: Traffic) -> ModelState:
    if state.labels.get(label) != traffic.base or traffic.candidate is None:
        raise StateConflict(
            f"{model} {label} is at {state.labels.get(label) or 'no version'} and not at {traffic.base}, which the "
            "rollout began with: a Marway that knows of no rollouts moved it; abort the rollout "
            f"(`marway rollout abort {model} --label {label}`)",
            model=model,
        )
    return labelled(without_rollout(state, label), label, traffic.candidate)


def _ended(action: RolloutAction, label: str) -> _Turn:
    return lambda state, traffic, at: (without_rollout(state, label), action)
