"""Shadow copies: who gets copies of a label's requests."""

from __future__ import annotations

from pydantic import ValidationError

from marway.errors import InvalidInput, StateConflict
from marway.records import HistoryEntry, ModelState
from marway.refs import DEFAULT_LABEL, check_label, check_version
from marway.registry.changes import Change, Changing
from marway.registry.moving import where_it_is
from marway.registry.traffic.states import divided, with_shadow, without_shadow
from marway.traffic import RolloutChange, ShadowRule, Traffic

__all__ = ["Shadowing"]


class Shadowing(Changing):
    """Starts and stops shadow copies, beside a rollout or with none. `by`, `note` and `op_id` are as in any change."""

    def start_shadow(
        self,
        name: str,
        version: str,
        *,
        label: str = DEFAULT_LABEL,
        percent: float = 100.0,
        note: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Copy so many in a hundred of the requests of ``label`` to ``version``, instead of as many as before.

        Raises:
            InvalidInput: The percent is not above 0 and at most 100.
            StateConflict: The label is not set, or at that version.
        """
        check_label(label)
        self.check_there()
        record = self._published_record(self.find(name), version)
        try:
            rule = ShadowRule(version=version, percent=percent)
        except ValidationError as exc:
            raise InvalidInput(f"{percent:g} % cannot be copied: give a percent above 0, up to 100") from exc
        if rule.percent <= 0:
            raise InvalidInput(
                f"0 % is no copy at all: `marway shadow stop {record.name} {version} --label {label}` ends copies"
            )

        def start(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            self._not_deleted(record, state)
            at = state.labels.get(label)
            if at is None or at == version:
                why = "is not set" if at is None else f"is at {at} itself"
                raise StateConflict(
                    f"{record.name} {label} {why}: there is nothing to copy to {version}", model=record.name
                )
            old = state.traffic.get(label) or Traffic(began=entry.at, step_began=entry.at, by=by, note=note)
            return divided(state, label, with_shadow(old, rule)), where_it_is(entry, state)

        change = RolloutChange(id=None, action="shadow", candidate=version, percent=rule.percent)
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, rollout=change)
        return self._change(record.name, start, entry, new_op=op_id is None)

    def stop_shadow(
        self,
        name: str,
        version: str | None = None,
        *,
        label: str = DEFAULT_LABEL,
        note: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """End the copies to ``version``, or to all. A rollout that runs goes on without those to its candidate.

        Raises:
            StateConflict: There are none.
        """
        check_label(label)
        model = self.find(name)
        if version is not None:
            check_version(version)

        def stop(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            old = state.traffic.get(label)
            if old is None or not any(version in (None, rule.version) for rule in old.shadow):
                to = "" if version is None else f" to {version}"
                raise StateConflict(f"no requests of {model} {label} are copied{to}: nothing changed", model=model)
            left = old.model_copy(update={"shadow": ()}) if version is None else without_shadow(old, version)
            return divided(state, label, left), where_it_is(entry, state)

        change = RolloutChange(id=None, action="shadow", candidate=version)
        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, note=note, rollout=change)
        return self._change(model, stop, entry, new_op=op_id is None)
