"""What the history says of a change of a rollout."""

from __future__ import annotations

from marway.records import HistoryEntry, ModelState
from marway.registry.traffic.states import without_rollout
from marway.traffic import RolloutAction, RolloutChange

__all__ = ["noted", "rolled_back"]


def rolled_back(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry] | None:
    """Return the state after a rollback of a label whose rollout runs, and its entry; None where none does.

    The entry is of the kind `label`: one of the kind `rollback` would be taken by readers from before there were
    rollouts for one that undid a release.
    """
    traffic = state.traffic.get(entry.label or "")
    if traffic is None or traffic.rollout is None:
        return None
    after = without_rollout(state, entry.label or "")
    undone = entry.model_copy(update={"kind": "label"})
    return after, noted(state, after, undone, "roll_back", guard=None, reason=entry.note)


def noted(
    before: ModelState,
    after: ModelState,
    entry: HistoryEntry,
    action: RolloutAction,
    *,
    guard: str | None,
    reason: str | None,
) -> HistoryEntry:
    """Return the entry of a change, with what it did to the rollout."""
    label = entry.label or ""
    old, new = before.traffic[label], after.traffic.get(label)
    if new is not None and new.rollout is not None:
        step, percent = new.step, new.percent
    else:
        step, percent = (len(old.steps) - 1, 100.0) if action == "promote" else (old.step, 0.0)
    done = RolloutChange(
        id=old.rollout,
        action=action,
        candidate=old.candidate,
        step=step,
        percent=percent,
        guard=guard,
        reason=reason,
    )
    facts = {"from_version": before.labels.get(label), "to_version": after.labels.get(label), "rollout": done}
    return entry.model_copy(update=facts)
