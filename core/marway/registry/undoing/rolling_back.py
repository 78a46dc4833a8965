"""Rollbacks: a label goes back to the version before, or to an earlier one that is named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from marway.errors import StateConflict
from marway.records import HistoryEntry, ModelState
from marway.refs import DEFAULT_LABEL, check_label, check_version
from marway.registry import history
from marway.registry.changes import Change
from marway.registry.moving import Moving, check_currently
from marway.registry.traffic.entries import rolled_back
from marway.registry.traffic.states import check_free_to_move, labelled
from marway.text import did_you_mean

__all__ = ["RollingBack"]

_HOLDERS_SHOWN = 10


class RollingBack(Moving):
    """Moves labels back. Takes `note`, `by` and `op_id` as `Releasing` does, and raises as it does."""

    def rollback(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        to: str | None = None,
        if_currently: str | None = None,
        note: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Undo the newest release of ``label`` that is not undone yet, or move it back ``to`` a version that had it.

        While a rollout runs, or is paused, that is what is undone: its candidate gets no more requests, and the label
        stays. A release that left the label where it was is passed over: undoing it would change nothing.
        What a protected label asks for does not hold this up: the version before was let in once.

        With ``to``, all releases since that version had the label are undone, so that the next rollback goes to the one
        before it. A version that had the label and was rolled back may be named, too: that undoes nothing, and the next
        rollback goes back to where the label is now.

        Raises:
            StateConflict: There is nothing to go back to, the label is not at ``if_currently``, or ``to`` never had it
                or has it now, or a rollout decides where it goes.
            VersionNotFound: The version to go back to was deleted.
        """
        check_label(label)
        if to is not None:
            check_version(to)
        model = self.find(name)

        def undo(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            current = state.labels.get(label)
            check_currently(model, label, current, if_currently)
            newest_first = history.newest_first(self._store, model, state)
            if to is not None:
                check_free_to_move(model, state, label, to)
                target, undone = to, _undone_down_to(model, newest_first, label, to, current)
                entry = entry.model_copy(update={"undone": undone})
            else:
                if (rolled := rolled_back(state, entry)) is not None:
                    return rolled
                before = next(_releases(newest_first, label), None)
                if before is None or before.from_version is None:
                    raise StateConflict(
                        f"{model} {label} has nothing to go back to: "
                        + (f"{current} was its first release" if current else "it was never released"),
                        model=model,
                    )
                target = before.from_version
            self._not_deleted(self.record(model, target), state)
            moved = {"from_version": current, "to_version": target}
            return labelled(state, label, target), entry.model_copy(update=moved)

        entry = self._entry(by=by, op_id=op_id, kind="rollback", label=label, to_version=to, note=note)
        return self._change(model, undo, entry, new_op=op_id is None)


def _releases(newest_first: Iterable[HistoryEntry], label: str) -> Iterator[HistoryEntry]:
    """Yield the releases of a label that no rollback has undone, newest first."""
    undone = 0
    for entry in newest_first:
        if entry.label != label:
            continue
        if entry.kind == "rollback" and entry.undone != 0:
            undone += entry.undone or 1
        elif entry.kind in ("label", "rollback") and entry.from_version != entry.to_version:
            if undone == 0:
                yield entry
            else:
                undone -= 1


def _undone_down_to(model: str, newest_first: Iterable[HistoryEntry], label: str, to: str, current: str | None) -> int:
    """Return how many releases a move back to a version undoes; 0 where it had the label and was rolled back since.

    Raises:
        StateConflict: It has the label, or never had it.
    """
    if to == current:
        raise StateConflict(f"{model} {label} is at {to}: nothing to go back", model=model, version=to)
    entries = [each for each in newest_first if each.label == label]
    for undone, release in enumerate(_releases(entries, label), start=1):
        if release.from_version == to:
            return undone
    had = dict.fromkeys(
        each for entry in entries for each in (entry.to_version, entry.from_version) if each is not None
    )
    if to in had:
        return 0
    names = [each for each in had if each != current]
    known = ", ".join(names[:_HOLDERS_SHOWN]) + " and more" * (len(names) > _HOLDERS_SHOWN)
    raise StateConflict(
        f"{model} {label} was never at {to}: it was at {known or 'no other version'}"
        f"{did_you_mean(to, names, 'version ', same_numbers=True)}; `marway release` moves it to any version",
        model=model,
        version=to,
    )
