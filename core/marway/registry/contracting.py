"""What consumers of a model rely on: added, read and removed; the state says which there are, each is an object."""

from __future__ import annotations

import contextlib

from marway.errors import InvalidInput, InvalidRecord, NotFound, StateConflict
from marway.objects import ObjectMissing
from marway.protection.contracts import (
    CONTRACTS_MAX,
    FIELDS_MAX,
    INPUT_BYTES_MAX,
    Contract,
    ContractChange,
    ContractRef,
    check_consumer,
    check_contract_name,
    check_field,
    contract_key,
    contracts_for,
)
from marway.records import HistoryEntry, ModelState, ServingChange
from marway.refs import check_label, new_ulid
from marway.registry import keys
from marway.registry.changes import Change, Changing
from marway.registry.encoding import encode
from marway.text import did_you_mean

__all__ = ["Contracting"]


class Contracting(Changing):
    """Keeps the contracts of consumers. Each change takes `by`, `note` and `op_id` as those of `Releasing` do."""

    def contracts(self, name: str, *, label: str | None = None) -> list[Contract]:
        """Return the contracts of a model, or those that hold for a label, in the order of their consumers.

        Raises:
            ModelNotFound: There is no such model.
            InvalidRecord: One is damaged, or gone though the state names it.
        """
        model = self.find(name)
        return self.contracts_of(model, self.state(model), label=label)

    def contracts_of(self, model: str, state: ModelState, *, label: str | None = None) -> list[Contract]:
        """Return the contracts that a state names, as `contracts` does."""
        return [self._contract(model, key, ref) for key, ref in contracts_for(state.contracts, label).items()]

    def _contract(self, model: str, key: str, ref: ContractRef) -> Contract:
        stored = keys.contract_object_key(model, ref.id)
        try:
            found = self._read(Contract, stored)
        except ObjectMissing as exc:
            if self.state(model).contracts.get(key) != ref:
                raise StateConflict(f"contract {key} of {model} was changed just now: ask again", model=model) from exc
            raise InvalidRecord(f"{stored}, contract {key} of {model}, is gone: add it again", model=model) from exc
        if found.sha256 != ref.sha256:
            raise InvalidRecord(f"{stored} is damaged: it is not contract {key} of {model}; add it again", model=model)
        return found

    def add_contract(self, name: str, contract: Contract, *, op_id: str | None = None) -> Change:
        """Add a contract, in place of the one of the same consumer and name.

        Raises:
            InvalidInput: It is too large, or something in it cannot be what it should.
            StateConflict: The model has as many as it can have.
        """
        model = self.find(name)
        _check(contract)
        replaced: list[str] = []
        ref = ContractRef(id=new_ulid(), sha256=contract.sha256, labels=contract.labels)
        key = keys.contract_object_key(model, ref.id)
        self.check_there()
        self._store.create(key, encode(contract, key=key))  # before the state that names it

        def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            before = state.contracts.get(contract.key)
            if before is None and len(state.contracts) >= CONTRACTS_MAX:
                raise StateConflict(f"{model} has {CONTRACTS_MAX} contracts, as many as it can have", model=model)
            replaced[:] = [before.id] if before is not None else []
            return state.model_copy(update={"contracts": {**state.contracts, contract.key: ref}}), entry

        what = ContractChange(action="add", consumer=contract.consumer, name=contract.name, labels=contract.labels)
        try:
            done = self._change(model, change, self._contract_entry(what, contract.by, contract.note, op_id),
                                new_op=op_id is None)  # fmt: skip
        except (InvalidInput, StateConflict):
            self._store.delete(key)
            raise
        if done.state.contracts.get(contract.key) != ref:
            replaced = [ref.id]  # made before under this op_id
        self._drop(model, replaced)
        return done

    def remove_contract(
        self, name: str, consumer: str, contract: str, *, note: str | None = None, by: str, op_id: str | None = None
    ) -> Change:
        """Remove a contract: nothing has to keep it any more.

        Raises:
            NotFound: There is none.
        """
        model = self.find(name)
        key = contract_key(check_consumer(consumer), check_contract_name(contract))
        removed: list[str] = []

        def change(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            if key not in state.contracts:
                known = ", ".join(sorted(state.contracts)) or "none"
                meant = did_you_mean(key, state.contracts)
                raise NotFound(f"{model} has no contract {key!r}: it has {known}{meant}", model=model)
            removed[:] = [state.contracts[key].id]
            left = {each: ref for each, ref in state.contracts.items() if each != key}
            return state.model_copy(update={"contracts": left}), entry

        what = ContractChange(action="remove", consumer=consumer, name=contract)
        done = self._change(model, change, self._contract_entry(what, by, note, op_id), new_op=op_id is None)
        self._drop(model, removed)
        return done

    def _contract_entry(self, what: ContractChange, by: str, note: str | None, op_id: str | None) -> HistoryEntry:
        serving = ServingChange(version="*")
        return self._entry(by=by, op_id=op_id, kind="serving", serving=serving, note=note, contract=what)

    def _drop(self, model: str, ids: list[str]) -> None:
        # Each is of one add: no other state names it. What is left when this is cut off, gc takes.
        for each in ids:
            with contextlib.suppress(ObjectMissing):
                self._store.delete(keys.contract_object_key(model, each))


def _check(contract: Contract) -> None:
    check_consumer(contract.consumer)
    check_contract_name(contract.name)
    for label in contract.labels:
        check_label(label)
    if len(contract.fields) > FIELDS_MAX:
        raise InvalidInput(f"a contract names at most {FIELDS_MAX} fields, not {len(contract.fields)}")
    for each in contract.fields:
        check_field(each)
    if contract.fields and contract.kind != "json":
        raise InvalidInput(
            f"the expected answer is {contract.kind} and has no fields: leave {contract.fields[0]!r} away"
        )
    if len(contract.input_b64) > INPUT_BYTES_MAX * 4 // 3 + 4:
        raise InvalidInput(f"the contract's input has more than {INPUT_BYTES_MAX} bytes: give a smaller one")
    if len(encode(contract)) > 3 * INPUT_BYTES_MAX:
        raise InvalidInput(f"the contract's expected answer has more than {INPUT_BYTES_MAX} bytes: name a smaller one")
