"""The beginning of a rollout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pydantic import ValidationError

from marway.errors import InvalidInput, ProofMissing, StateConflict, clip
from marway.records import HistoryEntry, ModelState, VersionRecord, utc_now
from marway.refs import DEFAULT_LABEL, check_label, new_ulid
from marway.registry import keys
from marway.registry.changes import Change
from marway.registry.moving import Moving, where_it_is
from marway.registry.traffic.states import divided, with_shadow
from marway.text import did_you_mean
from marway.traffic import GUARDS, STEPS, RolloutChange, RolloutRecord, ShadowRule, Traffic, whole_steps

__all__ = ["StartingRollouts"]


class StartingRollouts(Moving):
    """Begins rollouts. A rollout is known by its `RolloutRecord` before the state says that it runs."""

    def start_rollout(
        self,
        name: str,
        candidate: str,
        *,
        label: str = DEFAULT_LABEL,
        if_currently: str | None = None,
        steps: Sequence[float] = STEPS,
        step_time_s: float = 60.0,
        sticky: str = "request",
        shadow_percent: float = 100.0,
        guards: Mapping[str, float | None] | None = None,
        alpha: float = 0.01,
        policy: str = "steps",
        floor: float = 0.0,
        cap: float = 100.0,
        note: str | None = None,
        forced: bool = False,
        require_proof: bool = False,
        rollout: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Begin to send requests of ``label`` to ``candidate``, at the first of ``steps``, in percent.

        Args:
            name: The model.
            candidate: The version that is to take the place of the label's.
            label: Which label; it must point at a version.
            if_currently: Only if the label is at this version now.
            steps: Percents, growing; 100 is added at the end where it is left out.
            step_time_s: How long a step may take before a person is to look at it.
            sticky: What callers keep their side by.
            shadow_percent: How many of a hundred answers of the base are asked of the candidate as well; 0 for none.
            guards: What is watched, and its limit; None is all that can be judged, at their defaults.
            alpha: Bound for the probability that a candidate no worse than the base is rolled back.
            policy: `steps`, or `thompson`, which moves the percent between ``floor`` and ``cap``.
            floor: As ``policy`` says.
            cap: As ``policy`` says.
            note: Why.
            forced: Whether the candidate need not be proved, as the history then says.
            require_proof: Refuse a candidate that no pod has proved, unless ``forced``.
            rollout: Its ULID; a new one by default.
            by: Who.
            op_id: The caller's name for the change.

        Raises:
            InvalidInput: A step, limit or guard that cannot be.
            StateConflict: The label is not set, at the candidate already, not at ``if_currently``, or in a rollout.
            ProofMissing: No pod has proved the candidate, or has seen it keep what consumers rely on.
            LabelProtected: The label asks for more than is there.
        """
        check_label(label)
        rollout = rollout or new_ulid()
        planned = _planned(
            candidate,
            rollout=rollout,
            steps=steps,
            step_time_s=step_time_s,
            sticky=sticky,
            shadow_percent=shadow_percent,
            guards=guards,
            alpha=alpha,
            policy=policy,
            floor=floor,
            cap=cap,
            note=note,
            by=by,
        )
        self.check_there()
        record = self._published_record(self.find(name), candidate)
        change = RolloutChange(id=rollout, action="start", candidate=candidate, percent=planned.percent)

        def start(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            traffic = self._begun(record, state, label, planned, if_currently, named=guards is not None, at=entry.at)
            if require_proof and not forced and not self.is_proved(record):
                raise ProofMissing(
                    f"no pod has loaded {record.name} {candidate} and reproduced its golden answers yet, so its "
                    "rollout is not started: start it through a gateway, which has a pod prove it (--gateway with its "
                    "admin URL)",
                    model=record.name,
                    version=candidate,
                )
            if require_proof and not forced:
                self._check_contracts(state, record, label)
            self._check_protected(state, record, label, movers=(by,))
            return divided(state, label, traffic), where_it_is(entry, state)

        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, forced=forced, rollout=change)
        now = self.state(record.name)
        if op_id is None or all(each.op_id != op_id for each in now.history):
            with self._requesting_sign_off(record.name, label, by=by):
                begun = start(now, entry)[0].traffic[label]  # raises for one that is refused: nothing is stored of it
            written = RolloutRecord(
                id=rollout,
                model=record.name,
                label=label,
                base=now.labels[label],
                candidate=candidate,
                traffic=begun,
                at=entry.at,
                by=by,
            )
            self._create(keys.rollout_key(record.name, rollout), written)
        return self._change(record.name, start, entry, new_op=op_id is None)

    def plan_rollout(
        self, name: str, candidate: str, *, label: str = DEFAULT_LABEL, if_currently: str | None = None, **asked: Any
    ) -> Traffic:
        """Return how a rollout would divide requests now, as `start_rollout` takes it; nothing is changed.

        Raises:
            MarwayError: As `start_rollout`; whether the candidate is proved is not looked at.
        """
        check_label(label)
        record = self._published_record(self.find(name), candidate)
        planned = _planned(candidate, rollout=new_ulid(), **asked)
        named = asked.get("guards") is not None
        state = self.state(record.name)
        return self._begun(record, state, label, planned, if_currently, named=named, at=planned.began)

    def _begun(
        self,
        record: VersionRecord,
        state: ModelState,
        label: str,
        planned: Traffic,
        if_currently: str | None,
        *,
        named: bool,
        at: datetime,
    ) -> Traffic:
        """Return how a label is divided once a rollout begins; copies to other versions go on beside it."""
        self._not_deleted(record, state)
        base = _may_start(record, state, label, if_currently)
        there = state.traffic.get(label)
        others = () if there is None else (rule for rule in there.shadow if rule.version != record.version)
        begun = {
            "base": base,
            "began": at,
            "step_began": at,
            "shadow": (*others, *planned.shadow),
            "guards": _judged(record, state, planned.guards, named=named),
        }
        return planned.model_copy(update=begun)


def _planned(
    candidate: str,
    *,
    rollout: str,
    steps: Sequence[float] = STEPS,
    step_time_s: float = 60.0,
    sticky: str = "request",
    shadow_percent: float = 100.0,
    guards: Mapping[str, float | None] | None = None,
    alpha: float = 0.01,
    policy: str = "steps",
    floor: float = 0.0,
    cap: float = 100.0,
    note: str | None = None,
    by: str,
) -> Traffic:
    """Return how a rollout divides requests at its first step, as `StartingRollouts.start_rollout` takes it.

    Raises:
        InvalidInput: With what cannot be, and what can.
    """
    way = whole_steps(steps)
    percent = min(max(way[0], floor), cap) if policy == "thompson" else way[0]
    now = utc_now()
    try:
        traffic = Traffic.model_validate(
            {
                "rollout": rollout,
                "candidate": candidate,
                "percent": percent,
                "sticky": sticky,
                "steps": way,
                "step_time_s": step_time_s,
                "guards": _guards(guards),
                "alpha": alpha,
                "began": now,
                "step_began": now,
                "policy": policy,
                "floor": floor,
                "cap": cap,
                "by": by,
                "note": note,
            }
        )
        rule = ShadowRule(version=candidate, percent=shadow_percent)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        what = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"a rollout cannot have that {what}: {clip(first['msg'], 200)}") from exc
    if policy == "steps" and (floor, cap) != (0, 100):
        raise InvalidInput("floor and cap bound the percents of a policy, and steps are as given: leave them out")
    if policy == "thompson" and len(way) > 2 and way != STEPS:
        raise InvalidInput(
            f"scores say how it goes on from the first percent: give policy thompson one, such as {way[0]:g}"
        )
    if floor > cap:
        raise InvalidInput(f"the floor, {floor:g} %, is above the cap, {cap:g} %")
    return with_shadow(traffic, rule)


def _guards(given: Mapping[str, float | None] | None) -> dict[str, float | None]:
    guards = dict.fromkeys(guard for guard in GUARDS if guard != "quality") if given is None else dict(given)
    if not guards:
        raise InvalidInput(f"a rollout without guards would promote anything: there are {', '.join(GUARDS)}")
    for name, limit in guards.items():
        if name not in GUARDS:
            meant = did_you_mean(clip(name, 60), GUARDS)
            raise InvalidInput(f"there is no guard {clip(name, 60)!r}: there are {', '.join(GUARDS)}{meant}")
        if limit is not None and not (math.isfinite(limit) and limit > 0):
            raise InvalidInput(f"the limit of guard {name} is {limit}: give a number above 0, such as {name}=0.01")
    return guards


def _judged(
    record: VersionRecord, state: ModelState, guards: Mapping[str, float | None], *, named: bool
) -> Mapping[str, float | None]:
    """Return what is watched: quality as well where that can be told from feedback and nobody said what is wanted."""
    if state.serving_for(record).quality:
        return guards if named else {**guards, "quality": None}
    if "quality" in guards:
        raise InvalidInput(
            f"{record.name} {record.version} has no quality rule, so that guard quality could not judge it: give it "
            f"one (`marway serving {record.name} --set quality=…`), or leave the guard out",
            model=record.name,
            version=record.version,
        )
    return guards


def _may_start(record: VersionRecord, state: ModelState, label: str, if_currently: str | None) -> str:
    """Return the version that a label is at, beside which a candidate may begin."""
    base = state.labels.get(label)
    name, candidate, there = record.name, record.version, state.traffic.get(label)
    why = None
    if base is None:
        why = f"{name} {label} is not set: a first version is released, with `marway release {name} {candidate}`"
    elif if_currently not in (None, base):
        why = f"{name} {label} is at {base}, not at {if_currently}: nothing changed"
    elif there is not None and there.rollout is not None:
        why = (
            f"a rollout of {there.candidate} to {label} is {there.status} at {there.percent:g} %: promote or abort it "
            f"first (`marway rollout abort {name} --label {label}`)"
        )
    elif base == candidate:
        why = f"{name} {label} is at {candidate} already: there is nothing to roll out"
    if why is not None:
        raise StateConflict(why, model=name, version=candidate)
    assert base is not None
    return base
