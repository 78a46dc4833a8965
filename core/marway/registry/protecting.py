"""Protected labels: what a move asks for, looked at inside the change that moves the label."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from marway.errors import InvalidInput, LabelProtected, MarwayError, ProofMissing, StateConflict, clip
from marway.protection.freezes import check_freeze
from marway.protection.labels import (
    APPROVALS_MAX,
    FREEZES_MAX,
    Approval,
    Protection,
    ProtectionChange,
    ProtectionState,
    check_requirement,
    same_person,
)
from marway.protection.missing import ApprovalsMissing, contracts_unproved, refuse
from marway.records import HistoryEntry, ModelState, VersionRecord
from marway.refs import DEFAULT_LABEL, check_label, check_version
from marway.registry.changes import Change, Changing

__all__ = ["Protecting"]

_KEPT_MAX: Final = 100
"""Approvals that a label keeps, of all versions together: all readers of the state carry them about."""
_HOW_APPROVALS: Final = "`marway protect MODEL --label LABEL --approvals K` has it ask"


class Protecting(Changing):
    """Protects labels, and takes who agrees to their moves.

    Each change takes what those of `Releasing` take, and raises as they do.
    """

    def protection(self, name: str, *, label: str = DEFAULT_LABEL) -> ProtectionState:
        """Return how a label is protected."""
        model = self.find(name)
        state = self.state(model)
        return ProtectionState(model, check_label(label), state.labels.get(label), state.protection.get(label))

    def protect(
        self,
        name: str,
        *,
        label: str = DEFAULT_LABEL,
        approvals: int | None = None,
        require: Sequence[str] | None = None,
        freeze: Sequence[str] | None = None,
        note: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Have a label ask for something before it moves; what is None stays as it is, what is empty is asked no more.

        Args:
            name: The model.
            label: Which label; it need not point anywhere yet.
            approvals: How many others have to agree, 0 to 20.
            require: Proofs: `pod`, `replay`, `engines`, `contracts`.
            freeze: Windows, as `Freeze.parsed` reads them.
            note: Why.
            by: Who.
            op_id: As `Releasing` takes it.

        Raises:
            InvalidInput: No such proof or window, or nothing is asked for.
        """
        check_label(label)
        if approvals is not None and not 0 <= approvals <= APPROVALS_MAX:
            raise InvalidInput(f"{approvals} approvals cannot be asked for: 0 to {APPROVALS_MAX} can")
        asked: dict[str, object] = {}
        if approvals is not None:
            asked["approvals"] = approvals
        if require is not None:
            asked["require"] = tuple(dict.fromkeys(check_requirement(each) for each in require))
        if freeze is not None:
            asked["freeze"] = tuple(dict.fromkeys(check_freeze(each) for each in freeze))
            if len(freeze) > FREEZES_MAX:
                raise InvalidInput(f"a label can have {FREEZES_MAX} freeze windows, not {len(freeze)}")

        def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            made = {**asked, "by": by, "at": entry.at, "note": note}
            before = state.protection.get(label)
            after = before.model_copy(update=made) if before is not None else Protection.model_validate(made)
            if not (after.approvals or after.require or after.freeze):
                raise InvalidInput(
                    f"{label} would ask for nothing: give approvals, proofs that are required or a freeze window, or "
                    f"take its protection away: `marway protect {model} --label {label} --off`",
                    model=model,
                )
            return _protected(state, label, after), _where_it_is(entry, state)

        model = self.find(name)
        said = ProtectionChange.model_validate({"action": "protect", **asked})
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, protection=said)
        return self._change(model, change, entry, new_op=op_id is None)

    def unprotect(
        self, name: str, *, label: str = DEFAULT_LABEL, note: str | None = None, by: str, op_id: str | None = None
    ) -> Change:
        """Have a label move again without being asked for anything; who had agreed to what is forgotten.

        Raises:
            StateConflict: It is not protected.
        """
        check_label(label)
        model = self.find(name)

        def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            _protection_of(state, model, label)
            left = {each: kept for each, kept in state.protection.items() if each != label}
            return state.model_copy(update={"protection": left}), _where_it_is(entry, state)

        said = ProtectionChange(action="off")
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, protection=said)
        return self._change(model, change, entry, new_op=op_id is None)

    def approve(
        self,
        name: str,
        version: str,
        *,
        label: str = DEFAULT_LABEL,
        withdraw: bool = False,
        note: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Agree to a label's move to a version, or take that back with ``withdraw``.

        It is bound to the version's bytes, and ends when the label moves there: a version that was rolled back needs
        it again.

        Raises:
            StateConflict: The label asks for no approvals, the version is the caller's own, there is nothing to take
                back, or the label is at the version already.
        """
        check_label(label)
        model = self.find(name)
        record = self._published_record(model, check_version(version))
        if not withdraw and same_person(by, record.publisher):
            raise StateConflict(
                f"{model} {version} was published by {clip(record.publisher, 100)}: others have to agree to it",
                model=model,
                version=version,
            )

        def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            self._not_deleted(record, state)
            before = _protection_of(state, model, label)
            if not withdraw and before.approvals == 0:
                raise StateConflict(f"{label} of {model} asks for no approvals: {_HOW_APPROVALS}", model=model)
            if not withdraw and state.labels.get(label) == version:
                raise StateConflict(
                    f"{model} {label} is at {version} already: nothing is left to agree to", model=model
                )
            others = tuple(
                each
                for each in before.approved
                if each.version not in state.tombstones and not (each.version == version and same_person(each.by, by))
            )
            if withdraw and len(others) == len(before.approved):
                raise StateConflict(f"{by} has not agreed to {model} {version} at {label}: nothing to take back")
            if not withdraw:
                if len(others) >= _KEPT_MAX:
                    raise StateConflict(f"{model} {label} has {len(others)} approvals of other versions: withdraw some")
                others = (*others, _sign(record, entry))
            return _protected(state, label, before.model_copy(update={"approved": others})), _where_it_is(entry, state)

        said = ProtectionChange(action="withdraw" if withdraw else "approve", version=version)
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, protection=said)
        return self._change(model, change, entry, new_op=op_id is None)

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
        with self._asking(record, label, by=next(iter(movers))):
            self._check_protected(self.state(name), record, label, movers=movers, made=made)

    # -- for the parts of the registry that move labels ----------------------------------------------------

    def _moved(
        self, state: ModelState, entry: HistoryEntry, record: VersionRecord, label: str, *, movers: Collection[str]
    ) -> tuple[ModelState, HistoryEntry]:
        """Return a state whose label moved, and the entry that says who had agreed to that.

        Raises:
            LabelProtected: The label asks for more than is there.
        """
        approved = self._check_protected(state, record, label, movers=movers)
        labels = {**state.labels, label: record.version}
        if (protection := state.protection.get(label)) is not None and state.labels.get(label) != record.version:
            state = _protected(state, label, protection.without(record.version))
            if approved:
                entry = entry.model_copy(update={"approved_by": approved})
        return state.model_copy(update={"labels": labels}), entry

    @contextlib.contextmanager
    def _asking(self, record: VersionRecord, label: str, *, by: str) -> Iterator[None]:
        """Have a refusal for approvals that are missing said in the history, once, for those who can give them."""
        try:
            yield
        except ApprovalsMissing as exc:

            def ask(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
                protection = _protection_of(state, record.name, label)
                if any(each.version == record.version for each in protection.asked):
                    raise StateConflict("it was asked before")
                asked = (*protection.asked, _sign(record, entry))[-_KEPT_MAX:]
                after = _protected(state, label, protection.model_copy(update={"asked": asked}))
                return after, _where_it_is(entry, state)

            said = ProtectionChange(action="ask", version=record.version)
            with contextlib.suppress(MarwayError):  # that nobody was told is no reason for another answer
                self._change(
                    record.name, ask, self._entry(by=by, op_id=None, kind="label", label=label, protection=said)
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


def _protected(state: ModelState, label: str, protection: Protection) -> ModelState:
    return state.model_copy(update={"protection": {**state.protection, label: protection}})


def _protection_of(state: ModelState, model: str, label: str) -> Protection:
    found = state.protection.get(label)
    if found is None:
        protected = ", ".join(sorted(state.protection)) or "none"
        raise StateConflict(f"{label} of {model} is not protected: protected labels are {protected}", model=model)
    return found


def _where_it_is(entry: HistoryEntry, state: ModelState) -> HistoryEntry:
    current = state.labels.get(entry.label or "")
    return entry.model_copy(update={"from_version": current, "to_version": current})


def _sign(record: VersionRecord, entry: HistoryEntry) -> Approval:
    return Approval(
        version=record.version, archive_sha256=record.archive.sha256, by=entry.by, at=entry.at, note=entry.note
    )
