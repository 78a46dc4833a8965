"""Deletions: a version, or all of a model, is refused everywhere from then on; the bytes go when gc comes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from marway.errors import LabelProtected, StateConflict
from marway.records import HistoryEntry, ModelState, Tombstone
from marway.refs import check_version
from marway.registry.changes import Change
from marway.registry.graphs import pinned_by
from marway.registry.moving import Moving
from marway.registry.traffic.states import check_free_to_delete, without_deleted

__all__ = ["Deleting"]

_GRAPHS_SHOWN = 5


class Deleting(Moving):
    """Deletes versions and models. Takes `note`, `by` and `op_id` as `Releasing` does, and raises as it does."""

    def delete(
        self,
        name: str,
        version: str,
        *,
        note: str | None = None,
        forced: bool = False,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Delete a version: it is refused everywhere from now on, and its bytes go when gc comes.

        Its name and id stay taken: a version never comes back with other bytes. One that labels point at is refused,
        or, ``forced``, they are taken away with it.

        Raises:
            StateConflict: It is part of a rollout; or a label points at it, it gets copies of a label's requests, or a
                published graph names it, and it is not ``forced``.
            LabelProtected: A protected label points at it.
        """
        model = self.find(name)
        record = self.record(model, check_version(version))
        if not forced:
            self._check_unpinned(model, version)

        def bury(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            _check_unlabelled(model, state, version, forced=forced)
            grave = Tombstone(at=entry.at, by=by, note=note)
            serving = {key: value for key, value in state.serving.items() if key != version}
            tombstones = {version: grave, **state.tombstones}
            left = {label: at for label, at in state.labels.items() if at != version}
            after = state.model_copy(update={"tombstones": tombstones, "serving": serving, "labels": left})
            return without_deleted(after, version), entry

        entry = self._entry(by=by, op_id=op_id, kind="tombstone", from_version=record.version, note=note, forced=forced)
        return self._change(model, bury, entry, new_op=op_id is None)

    def delete_model(
        self, name: str, *, note: str | None = None, forced: bool = False, by: str, op_id: str | None = None
    ) -> Iterator[Change]:
        """Delete all versions of a model, one after another; what would be refused for one is refused for all first.

        It goes on as its caller takes the changes, who so knows of those that were made before one failed.

        What was cut off goes on when it is asked for again. The name can be used again, for versions that it has not
        had: those that were deleted do not come back.

        Yields:
            A change for each version that was deleted now; none where all were before.

        Raises:
            StateConflict: A version is part of a rollout; or labels point at versions, copies of requests go to one, or
                a published graph names one, and it is not ``forced``.
            LabelProtected: A protected label points at one.
        """
        model = self.find(name)
        state, left = self.state(model), self._left(model, self.state(model))
        if state.labels and not forced:
            labels = ", ".join(f"{label} → {at}" for label, at in sorted(state.labels.items()))
            raise StateConflict(
                f"{model} is served ({labels}): delete it with its labels (--force), and requests for it fail",
                model=model,
            )
        for version in left:
            _check_unlabelled(model, state, version, forced=forced)
            if not forced:
                self._check_unpinned(model, version)
        # Again until none is left: somebody may publish one meanwhile.
        while left:
            for version in left:
                mine = None if op_id is None else hashlib.sha256(f"{op_id}/{version}".encode()).hexdigest()[:32]
                yield self.delete(model, version, note=note, forced=forced, by=by, op_id=mine)
            left = self._left(model, self.state(model))

    def _check_unpinned(self, model: str, version: str) -> None:
        """Refuse to delete what a published graph names."""
        graphs = list(pinned_by(self, model, version))
        if graphs:
            names = ", ".join(" ".join(each) for each in graphs[:_GRAPHS_SHOWN])
            raise StateConflict(
                f"{model} {version} is named by the {'graph' if len(graphs) == 1 else 'graphs'} {names}"
                f"{' and more' * (len(graphs) > _GRAPHS_SHOWN)}: publish them with another version and delete these "
                "first, or delete it all the same (--force), and they fail",
                model=model,
                version=version,
            )


def _check_unlabelled(model: str, state: ModelState, version: str, *, forced: bool) -> None:
    check_free_to_delete(model, state, version, forced=forced)
    labels = sorted(label for label, at in state.labels.items() if at == version)
    if labels and not forced:
        raise StateConflict(
            f"{model} {version} is {', '.join(labels)}: move the label to another version first, then delete, "
            "or delete it with the label (--force)",
            model=model,
            version=version,
        )
    if protected := [label for label in labels if label in state.protection]:
        raise LabelProtected(
            f"{model} {version} is {protected[0]}, which is protected: move the label to another version first",
            model=model,
            version=version,
        )
