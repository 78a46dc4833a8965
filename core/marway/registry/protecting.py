"""Protected labels: what a move asks for, looked at inside the change that moves the label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from marway.errors import InvalidInput, StateConflict, clip
from marway.protection.freezes import check_freeze
from marway.protection.labels import (
    APPROVALS_MAX,
    FREEZES_MAX,
    Protection,
    ProtectionChange,
    ProtectionState,
    check_requirement,
    same_person,
)
from marway.records import HistoryEntry, ModelState
from marway.refs import DEFAULT_LABEL, check_label, check_version
from marway.registry.changes import Change
from marway.registry.moving import KEPT_MAX, Moving, protected, protection_of, signed, where_it_is

__all__ = ["Protecting"]

_HOW_APPROVALS: Final = "`marway protect MODEL --label LABEL --approvals K` has it ask"


class Protecting(Moving):
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
            return protected(state, label, after), where_it_is(entry, state)

        model = self.find(name)
        protection = ProtectionChange.model_validate({"action": "protect", **asked})
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, protection=protection)
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
            protection_of(state, model, label)
            left = {each: kept for each, kept in state.protection.items() if each != label}
            return state.model_copy(update={"protection": left}), where_it_is(entry, state)

        protection = ProtectionChange(action="off")
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, protection=protection)
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
            before = protection_of(state, model, label)
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
                if len(others) >= KEPT_MAX:
                    raise StateConflict(f"{model} {label} has {len(others)} approvals of other versions: withdraw some")
                others = (*others, signed(record, entry))
            return protected(state, label, before.model_copy(update={"approved": others})), where_it_is(entry, state)

        protection = ProtectionChange(action="withdraw" if withdraw else "approve", version=version)
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, protection=protection)
        return self._change(model, change, entry, new_op=op_id is None)
