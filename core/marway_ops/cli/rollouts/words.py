"""Rollouts in words: what one will do and would notice, and how it stands."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from marway.records import HistoryEntry
from marway.registry.traffic.status import RolloutMove, RolloutStatus
from marway.traffic import RolloutChange, Traffic
from marway.wire.rollouts import GuardEvidence, GuardPlan, RolloutPlan
from marway_ops.shell.output import when

__all__ = [
    "COLUMNS",
    "guard_rows",
    "move_line",
    "plan_lines",
    "rollout_words",
    "state_words",
    "status_lines",
    "traffic_lines",
]

COLUMNS: Final = ("guard", "verdict", "worse by", "at most", "allowed", "against it", "counted")
_VERDICTS: Final = {"worse": "WORSE", "not_worse": "not worse", "unclear": "unclear"}
_DONE: Final[Mapping[str, str]] = {
    "start": "started",
    "step": "went on",
    "weights": "moved by scores",
    "pause": "paused",
    "resume": "resumed",
    "promote": "promoted",
    "roll_back": "rolled back",
    "abort": "aborted",
    "shadow": "shadow copies",
}


def _seconds(value: float | None) -> str:
    """Return a time as people read it."""
    if value is None:
        return "?"
    if value < 120:
        return f"{value:.0f} s"
    return f"{value / 60:.0f} min" if value < 7200 else f"{value / 3600:.1f} h"


def _share(value: float | None) -> str:
    """Return a fraction as a percent."""
    return "-" if value is None else f"{100 * value:.3g} %"


def plan_lines(plan: RolloutPlan, *, model: str, candidate: str, base: str | None, label: str) -> Iterator[str]:
    """Yield what a rollout will do, how long that takes, and what it would and would not notice."""
    yield f"rollout of {model} {candidate} to {label}, which is at {base}; at {plan.rate_per_s:.3g} requests/s:"
    for number, step in enumerate(plan.steps, 1):
        if plan.policy == "thompson":
            yield f"  starts with {step.percent:g} % of requests"
            continue
        if step.percent >= 100:
            yield f"  step {number}  100 %: {label} moves to {candidate}"
            continue
        lasts = (
            f"about {_seconds(step.expected_s)} if it is as good as {base}"
            if step.expected_s is not None
            else f"{_seconds(plan.step_time_s)}, then a person has to look: evidence will not suffice by then"
        )
        yield f"  step {number}  {step.percent:g} % of requests, {lasts}"
    if plan.expected_s is not None:
        yield f"  in all about {_seconds(plan.expected_s)}; a step that takes {_seconds(plan.step_time_s)} pauses it"
    copies = f"{plan.shadow_percent:g} % of {base}'s answers are asked of {candidate} too, for nobody to get"
    yield f"  copies  {copies}" if plan.shadow_percent else "  copies  none: only callers' requests count"
    yield f"  a candidate no worse than the base is rolled back in at most {100 * plan.alpha:g} of 100 rollouts"
    yield "what is watched, and what is found:"
    for name, guard in plan.guards.items():
        yield f"  {name:<13}{_guard_plan(guard)}"
    yield from (f"note: {note}" for note in plan.notes)


def _guard_plan(guard: GuardPlan) -> str:
    parts = [f"worse by more than {_share(guard.limit)} is too much"]
    if guard.found:
        parts.append(
            "found: " + ", ".join(f"{_share(float(size))} in {_seconds(at)}" for size, at in guard.found.items())
        )
    if guard.smallest is not None:
        parts.append(f"not found within the first step: less than {_share(guard.smallest)}")
    if guard.passes_after_s is not None:
        parts.append(f"passes after {_seconds(guard.passes_after_s)}")
    return "; ".join(parts) + (f" ({guard.note})" if guard.note else "")


def state_words(status: RolloutStatus) -> str:
    """Return in words where a rollout is."""
    where = f"step {status.step + 1} of {len(status.steps)}, " if status.steps else ""
    return {
        "running": f"running: {where}{status.percent:g} % of requests",
        "paused": f"PAUSED: {where}{status.percent:g} % of requests",
        "promoted": f"promoted: {status.label} is at {status.candidate}",
        "rolled_back": f"ROLLED BACK: {status.label} stays at {status.base}",
        "aborted": f"aborted: {status.label} stays at {status.base}",
    }[status.state]


def status_lines(status: RolloutStatus) -> Iterator[str]:
    """Yield how a rollout stands; the guards are a table of their own."""
    yield f"{status.model} {status.label}: {status.base} → {status.candidate}, {state_words(status)}"
    yield f"  rollout  {status.rollout}, started {when(status.began)} by {status.by}" + (
        f": {status.note}" if status.note else ""
    )
    if status.steps:
        yield f"  steps    {', '.join(f'{step:g}' for step in status.steps)} %, each at most {_time(status)}"
    if status.reason:
        yield f"  why      {status.reason}"
    if status.state == "paused":
        way = f"{status.model} --label {status.label}"
        yield f"  next     marway rollout resume|promote|abort {way}"
    for move in status.changes[1:]:
        yield f"  {move_line(move, known=status.reason)}"
    if not status.evidence and status.evidence_missing:
        yield f"  guards   {status.evidence_missing}"


def rollout_words(entry: HistoryEntry, done: RolloutChange) -> str:
    """Return what a change of a rollout, or of shadow copies, did, as the history says it."""
    label, candidate = entry.label, done.candidate or "any version"
    if done.action == "shadow":
        return (
            f"{done.percent:g} % of {label} copied to {candidate}"
            if done.percent
            else f"{label} not copied to {candidate} any more"
        )
    if done.action == "promote":
        return f"{label} {entry.from_version or 'none'} → {entry.to_version} (rollout promoted)"
    by = f" by guard {done.guard}" if done.guard else ""
    at = f" at {done.percent:g} %" if done.action in ("start", "step", "weights", "resume", "pause") else ""
    return f"rollout of {candidate} to {label} {_DONE[done.action]}{at}{by}" + " (forced)" * entry.forced


def traffic_lines(label: str, traffic: Traffic) -> Iterator[str]:
    """Yield how a label is divided now."""
    if traffic.rollout is not None:
        step = f"step {traffic.step + 1} of {len(traffic.steps)}"
        why = f": {traffic.reason}" if traffic.reason else ""
        yield (
            f"{label}: {traffic.percent:g} % to {traffic.candidate} in a rollout that is {traffic.status} "
            f"({step}, began {when(traffic.began)}){why}"
        )
    for rule in traffic.shadow:
        yield f"{label}: {rule.percent:g} % copied to {rule.version}"


def _time(status: RolloutStatus) -> str:
    spent = "" if status.step_s is None else f" ({_seconds(status.step_s)} so far)" * (status.ended is None)
    return f"{_seconds(status.step_time_s)}{spent}"


def move_line(move: RolloutMove, *, known: str | None = None) -> str:
    """Return one change of a rollout as a line, without the reason that was told before."""
    to = f" at {move.percent:g} %" if move.action in ("step", "weights", "resume", "pause") else ""
    why = f": {move.reason}" if move.reason and move.reason != known else ""
    return f"{when(move.at)}  {_DONE[move.action]}{to} by {move.by}{why}"


def guard_rows(status: RolloutStatus) -> Iterator[tuple[str, ...]]:
    """Yield a row for each guard, in the order of `COLUMNS`."""
    for name, each in status.evidence.items():
        yield (
            name,
            _VERDICTS[each.verdict],
            _share(each.estimate),
            _share(each.bound),
            _share(each.limit),
            f"{100 * max(0.0, each.evidence):.0f} %",
            _counts(each),
        )


def _counts(guard: GuardEvidence) -> str:
    """Return what was counted, without what was counted never, and what is missing for a verdict."""
    counted = ", ".join(f"{name.replace('_', ' ')} {_count(name, n)}" for name, n in guard.counts.items() if n)
    return f"{counted}; {guard.missing}" if counted and guard.missing else guard.missing or counted or "-"


def _count(name: str, count: float) -> str:
    return f"{count / 2**20:.1f} MiB" if "bytes" in name else f"{count:g}"
