"""Labels and serving settings: what may change about a model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from marway.errors import InvalidInput, ProofMissing, clip
from marway.graphs.settings import check_settings
from marway.records import HistoryEntry, ModelState, ServingChange, VersionRecord
from marway.refs import DEFAULT_LABEL, check_label, check_version
from marway.registry.changes import Change
from marway.registry.moving import Moving, check_currently
from marway.registry.traffic.states import check_free_to_move, labelled
from marway.serving import ServingSettings
from marway.text import did_you_mean

__all__ = ["Releasing"]

ALL_VERSIONS = "*"


class Releasing(Moving):
    """Moves labels, overrides serving settings.

    Every change takes `note`, why, and `by`, who, for the history, and `op_id`, the caller's own name for the change:
    one that was made under it is not made again. Each raises `OutcomeUnknown` when the write's fate could not be found
    out, and `ModelNotFound` or `VersionNotFound` when nothing was changed.
    """

    def release(
        self,
        name: str,
        version: str,
        *,
        label: str = DEFAULT_LABEL,
        if_currently: str | None = None,
        note: str | None = None,
        forced: bool = False,
        require_proof: bool = False,
        unproved_first: bool = False,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Move ``label`` to ``version``, which must be published; with ``if_currently`` only if it is at that now.

        With ``require_proof`` a version that no pod has proved is refused, unless the release is ``forced``, as the
        history then says. The `marway` command, the archiver and gateways ask for it; who writes the registry himself
        decides for himself. Even so, ``unproved_first`` lets a label that points at nothing yet be set without a proof,
        which the history calls forced: nobody is served by it, and before the first pod nothing could prove anything.

        A protected label moves only when all is there that it asks for, forced or not.

        Raises:
            ProofMissing: No pod has proved the version, or has seen it keep what consumers rely on.
            LabelProtected: The label asks for more than is there; the message lists all of it.
            StateConflict: The label is not at ``if_currently``, or a rollout decides where it goes.
        """
        check_label(label)
        self.check_there()
        record = self._published_record(self.find(name), version)

        def move(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            self._not_deleted(record, state)
            current = state.labels.get(label)
            check_currently(record.name, label, current, if_currently)
            check_free_to_move(record.name, state, label, version)
            facts: dict[str, object] = {"from_version": current}
            if require_proof and not forced and not self.is_proved(record):
                if not unproved_first or current not in (None, version):
                    raise _unproved(record, label, current)
                facts["forced"] = True
            elif require_proof and not forced:
                self._check_contracts(state, record, label)
            after = labelled(state, label, version)
            return self._admitted(state, after, entry.model_copy(update=facts), record, label, movers=(by,))

        entry = self._entry(by=by, op_id=op_id, kind="label", label=label, to_version=version, note=note, forced=forced)
        with self._requesting_sign_off(record.name, label, by=by):
            return self._change(record.name, move, entry, new_op=op_id is None)

    def set_serving(
        self,
        name: str,
        *,
        version: str = ALL_VERSIONS,
        set_fields: Mapping[str, Any] | None = None,
        unset: Sequence[str] = (),
        note: str | None = None,
        by: str,
        op_id: str | None = None,
    ) -> Change:
        """Override serving settings, ``set_fields``, without publishing again, for a version or for all (`*`).

        A version's own override wins. Fields that are ``unset`` have no override from now on, so that the record's
        value, or that of `*`, counts again.

        Raises:
            InvalidInput: No such field, or a value that it cannot have.
        """
        changes = dict(set_fields or {})
        check_serving_fields([*changes, *unset])
        if both := sorted(changes.keys() & set(unset)):
            raise InvalidInput(f"serving setting {both[0]!r} is both set and unset: say one of them")
        validated = _validated(changes)
        model = self.find(name)
        records = [] if version == ALL_VERSIONS else [self._published_record(model, check_version(version))]
        # Versions of one model are of one kind: of a setting for all, one tells whether it has an effect.
        for record in records or [self.record(model, each) for each in self.versions(model)[-1:]]:
            check_settings(record, validated, changes)

        def override(state: ModelState, entry: HistoryEntry) -> tuple[ModelState, HistoryEntry]:
            for record in records:
                self._not_deleted(record, state)
            old = state.serving.get(version, ServingSettings()).model_dump(mode="json", exclude_unset=True)
            fields = {key: value for key, value in {**old, **changes}.items() if key not in unset}
            serving = {**state.serving, version: _validated(fields)}
            if not fields:
                del serving[version]
            after = state.model_copy(update={"serving": serving})
            for record in records:
                _check_together(after.serving_for(record))
            return after, entry

        change = ServingChange(version=version, set=changes, unset=tuple(unset))
        entry = self._entry(by=by, op_id=op_id, kind="serving", serving=change, note=note)
        return self._change(model, override, entry, new_op=op_id is None)


def _unproved(record: VersionRecord, label: str, current: str | None) -> ProofMissing:
    stays = f"{label} stays at {current}" if current is not None else f"{label} is not set"
    return ProofMissing(
        f"no pod has loaded {record.name} {record.version} and reproduced its golden answers yet, so {stays}: release "
        "it through a gateway, which has a pod prove it (--gateway with its admin URL), or without a proof (--force)",
        model=record.name,
        version=record.version,
    )


def check_serving_fields(names: Iterable[str]) -> None:
    """Refuse names that are no serving settings.

    Raises:
        InvalidInput: With the settings that there are.
    """
    for name in names:
        if name not in ServingSettings.model_fields:
            known = ", ".join(sorted(ServingSettings.model_fields))
            meant = did_you_mean(clip(name, 60), ServingSettings.model_fields)
            raise InvalidInput(f"there is no serving setting {clip(name, 60)!r}: there are {known}{meant}")


def _validated(fields: Mapping[str, Any]) -> ServingSettings:
    try:
        settings = ServingSettings.model_validate(dict(fields))
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"serving setting {name!r}: {clip(first['msg'], 200)}") from exc
    if "min_workers" in fields and "max_workers" in fields:
        _check_together(settings)
    return settings


def _check_together(settings: ServingSettings) -> None:
    """Refuse settings each of which could be, but not with the others."""
    problem = settings.problem()
    if problem is not None:
        raise InvalidInput(problem)
