"""Moves of labels: what a protected one asks for, and what consumers rely on, looked at inside the change itself."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from typing import Final

from marway.errors import LabelProtected, MarwayError, ProofMissing, StateConflict
from marway.protection.labels import Approval, Protection, ProtectionChange
from marway.protection.missing import ApprovalsMissing, contracts_unproved, engines_missing, refuse
from marway.records import HistoryEntry, ModelState, VersionRecord
from marway.registry.changes import Changing

__all__ = ["KEPT_MAX", "Moving", "check_currently", "protected", "protection_of", "signed", "where_it_is"]

KEPT_MAX: Final = 100
"""Approvals that a label keeps, of all versions together: all readers of the state carry them about."""


class Moving(Changing):
    """Says whether a label may move, for those who move it: releases and rollouts alike."""

    def check_move(
        self, name: str, version: str, *, label: str, movers: Collection[str], made: Collection[str] = ()
    ) -> None:
        """Refuse a move of a label that would be refused, before any work is done for it; nothing is moved.

        Args:
            name: The model, as it is written.
            version: Where the label is to move.
            label: Which label.
            movers: Who moves it: what they agree to does not count.
            made: Proofs that will be there by then.

        Raises:
            LabelProtected: The label asks for more than is there.
        """
        record = self.record(name, version)
        with self._requesting_sign_off(name, label, by=next(iter(movers))):
            self._check_protected(self.state(name), record, label, movers=movers, made=made)

    def move_lacks(self, name: str, version: str, *, label: str, made: Collection[str] = ()) -> str | None:
        """Return what a move of a label would be refused for now, whoever makes it, or None; nobody is asked for it."""
        try:
            self._check_protected(self.state(name), self.record(name, version), label, movers=(), made=made)
        except LabelProtected as exc:
            return exc.message
        return None

    def engines_missing(self, record: VersionRecord, label: str) -> list[str]:
        """Return the engines of which a label asks for a proof of a version that is not there."""
        protection = self.state(record.name).protection.get(label)
        if protection is None or "engines" not in protection.require:
            return []
        return engines_missing(protection, record, self.proofs(record.archive.sha256, skip_damaged=True))

    def _admitted(
        self,
        before: ModelState,
        after: ModelState,
        entry: HistoryEntry,
        record: VersionRecord,
        label: str,
        *,
        movers: Collection[str],
    ) -> tuple[ModelState, HistoryEntry]:
        """Return the state ``after`` a label moved to a version, and the entry, which says who had agreed to that.

        Raises:
            LabelProtected: The label asks for more than is there.
        """
        approved = self._check_protected(before, record, label, movers=movers)
        protection = after.protection.get(label)
        if protection is None or before.labels.get(label) == record.version:
            return after, entry
        entry = entry.model_copy(update={"approved_by": approved or None})
        return protected(after, label, protection.without(record.version)), entry

    @contextlib.contextmanager
    def _requesting_sign_off(self, model: str, label: str, *, by: str) -> Iterator[None]:
        """Have a refusal for approvals that are missing said in the history, once, for those who can give them."""
        try:
            yield
        except ApprovalsMissing as exc:
            record = self.record(model, exc.version or "")

            def ask(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
                protection = protection_of(state, record.name, label)
                if any(each.version == record.version for each in protection.asked):
                    raise StateConflict("it was asked before")
                asked = (*protection.asked, signed(record, entry))[-KEPT_MAX:]
                after = protected(state, label, protection.model_copy(update={"asked": asked}))
                return after, where_it_is(entry, state)

            change = ProtectionChange(action="ask", version=record.version)
            with contextlib.suppress(MarwayError):  # that nobody was told is no reason for another answer
                self._change(
                    record.name, ask, self._entry(by=by, op_id=None, kind="label", label=label, protection=change)
                )
            raise LabelProtected(exc.message, model=exc.model, version=exc.version) from exc

    def _check_protected(
        self,
        state: ModelState,
        record: VersionRecord,
        label: str,
        *,
        movers: Collection[str],
        made: Collection[str] = (),
    ) -> tuple[str, ...]:
        """Return who agreed to a move; those of a label that is not protected, or is there already, are none."""
        protection, current = state.protection.get(label), state.labels.get(label)
        if protection is None or current == record.version:
            return ()
        return refuse(
            state,
            record,
            label,
            protection,
            movers=movers,
            base=self.record(record.name, current) if current is not None else None,
            proofs=list(self.proofs(record.archive.sha256, skip_damaged=True)) if protection.require else [],
            now=self._store.now,
            made=made,
        )

    def _check_contracts(self, state: ModelState, record: VersionRecord, label: str) -> None:
        """Refuse a version that no pod has seen keep the contracts of the label.

        Raises:
            ProofMissing: With whose they are.
        """
        proofs = self.proofs(record.archive.sha256, skip_damaged=True) if state.contracts else ()
        left = contracts_unproved(state, proofs, label)
        if left and state.labels.get(label) != record.version:
            raise ProofMissing(
                f"no pod has seen {record.name} {record.version} keep what consumers rely on ({', '.join(left)}): "
                f"release it through a gateway, which has a pod asked, or run `marway contract check {record.name} "
                f"{record.version}`",
                model=record.name,
                version=record.version,
            )


def check_currently(model: str, label: str, current: str | None, wanted: str | None) -> None:
    """Refuse a move of a label that is not where its mover saw it; None stands for wherever it is."""
    if wanted is not None and current != wanted:
        raise StateConflict(
            f"{model} {label} is at {current or 'no version'}, not at {wanted}: nothing changed", model=model
        )


def protected(state: ModelState, label: str, protection: Protection) -> ModelState:
    """Return the state with a label so protected."""
    return state.model_copy(update={"protection": {**state.protection, label: protection}})


def protection_of(state: ModelState, model: str, label: str) -> Protection:
    """Return how a label is protected, or raise `StateConflict` where it is not."""
    found = state.protection.get(label)
    if found is None:
        others = ", ".join(sorted(state.protection)) or "none"
        raise StateConflict(f"{label} of {model} is not protected: protected labels are {others}", model=model)
    return found


def where_it_is(entry: HistoryEntry, state: ModelState) -> HistoryEntry:
    """Return the entry of a change by which a label stays where it is."""
    current = state.labels.get(entry.label or "")
    return entry.model_copy(update={"from_version": current, "to_version": current})


def signed(record: VersionRecord, entry: HistoryEntry) -> Approval:
    """Return what the entry says somebody asked or agreed of a version."""
    return Approval(
        version=record.version, archive_sha256=record.archive.sha256, by=entry.by, at=entry.at, note=entry.note
    )
