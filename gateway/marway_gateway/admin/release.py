"""The safe release: a label moves to a version that a pod has loaded, whose golden answers it has reproduced, and that
does not fail or answer in another form where the version before it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from marway.deadline import Deadline
from marway.errors import AnswersDiffer, LoadFailed, MarwayError
from marway.protection.contracts import ContractReport
from marway.records import VersionRecord
from marway.refs import Reference, check_label, check_model_id, check_version
from marway.registry import Change, Registry
from marway.registry.traffic.states import check_free_to_move
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.comparison import Comparison, refusal
from marway_gateway.admin.contracts import ContractChecks
from marway_gateway.admin.loading import Loader, PodLoad
from marway_gateway.admin.parameters import Caller
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.admin.traffic.views import RolloutStart
from marway_gateway.admin.views import LabelMove, PodLoadView, ReleaseView

__all__ = ["MADE", "Releaser"]


class _Known(NamedTuple):
    """What the registry says of a version and a label, read at once."""

    record: VersionRecord
    serving: ServingSettings
    current: str | None
    proved: bool
    made: bool
    """Whether the very change that is asked for was made before, and only its answer was lost."""


class _Examined(NamedTuple):
    """What came of having pods load, prove and compare a version, and asking it what consumers rely on."""

    loads: Sequence[PodLoad]
    comparison: Comparison
    contracts: ContractReport


MADE: Final = ("pod", "engines", "contracts")
"""Proofs that a release has made itself: a label that asks for them need not have them before."""


class Releaser:
    """Moves labels, once the loader has loaded and proved a version and a pod has compared it.

    Attributes:
        contracts: Has versions asked what consumers rely on.
    """

    def __init__(self, loader: Loader, writer: RegistryWriter, contracts: ContractChecks) -> None:
        self._loader = loader
        self._writer = writer
        self.contracts = contracts

    async def release(
        self, model: str, label: str, move: LabelMove, caller: Caller, *, deadline: Deadline | None
    ) -> ReleaseView:
        """Load a version, prove it unless that was done before, compare it, and move the label to it.

        Args:
            model: The model's name.
            label: Which label.
            move: Where to, and whether without load, proof and comparison, which the history says then.
            caller: Who asks, and under which name for the change.
            deadline: Of all of it; None allows loading and comparing what the version says its load may take, each.

        Raises:
            InvalidReference, NotFound: There is no such version, or it cannot be a label.
            AnswersDiffer, LoadFailed, ArchiveCorrupt: The version is not what it should be; the label stays.
            ReleaseRefused: It is not like the version that the label points at; the label stays.
            ContractBroken: It does not keep what consumers rely on; the label stays.
            LabelProtected: The label asks for more than is there, or than this makes; the label stays.
            StateConflict: The label is not at ``move.if_currently``, or was moved during the comparison.
            Unavailable, DeadlineExceeded: No pod could prove it; the label stays.
        """
        version, if_currently = move.version, move.if_currently
        check_label(label)
        check_version(version)
        registry = self._writer.registry
        known = await self._writer.call(_known, registry, model, version, label, caller.op_id)
        record = known.record
        loads: Sequence[PodLoad] = ()
        contracts: ContractReport | None = None
        why = "it was released before" if known.made else "the release was forced"
        comparison = Comparison(version=version, base=known.current, not_compared=why)
        if not move.force and not known.made:
            # Here as well as in the change itself: no pod loads a version for a label that a rollout moves.
            await self._writer.call(_check_no_rollout, registry, record.name, label, version)
            loads, comparison, contracts = await self._examined(known, label, caller.by, deadline=deadline)
            if_currently = if_currently or known.current  # what it was compared with
        _, change = await self._writer.change(
            registry.release,
            record.name,
            version,
            label=label,
            if_currently=if_currently,
            note=move.note,
            forced=move.force,
            require_proof=True,
            by=caller.by,
            op_id=caller.op_id,
        )
        views = tuple(PodLoadView.of(each) for each in loads)
        return ReleaseView.of(record.name, change.entry, loads=views, comparison=comparison, contracts=contracts)

    async def start_rollout(
        self, model: str, label: str, start: RolloutStart, caller: Caller, *, deadline: Deadline | None
    ) -> tuple[Change, Sequence[PodLoad], Comparison]:
        """Load a version, prove and compare it as a release does, and begin to send requests of the label to it.

        Raises:
            MarwayError: As `release`; nothing is divided then.
        """
        check_label(label)
        check_version(start.version)
        registry = self._writer.registry
        settings = start.settings()
        asked = {**settings, "if_currently": start.if_currently}
        known = await self._writer.call(_known, registry, model, start.version, label, caller.op_id)
        loads: Sequence[PodLoad] = ()
        why = "it was started before" if known.made else "its start was forced"
        comparison = Comparison(version=start.version, base=known.current, not_compared=why)
        if not known.made:
            # What it says is looked at before a pod is asked for anything.
            await self._writer.call(
                partial(registry.plan_rollout, known.record.name, start.version, label=label, by=caller.by, **asked)
            )
            if not start.force:
                loads, comparison, _ = await self._examined(known, label, caller.by, deadline=deadline)
        _, change = await self._writer.change(
            registry.start_rollout,
            known.record.name,
            start.version,
            label=label,
            if_currently=start.if_currently or (known.current if loads else None),  # what it was compared with
            forced=start.force,
            require_proof=True,
            by=caller.by,
            op_id=caller.op_id,
            **settings,
        )
        return change, loads, comparison

    async def _examined(self, known: _Known, label: str, by: str, *, deadline: Deadline | None) -> _Examined:
        """Have a pod load and prove a version, unless that was done before, compare it with the label's, and ask it
        what consumers rely on.

        Raises:
            ContractBroken, LabelProtected: As `release`.
            AnswersDiffer, LoadFailed, ReleaseRefused: It is not what it should be; the message says that the label
                stays.
        """
        record, load_s = known.record, known.serving.load_timeout_s
        registry = self._writer.registry
        # Sign-off and time are looked at before a pod is asked for anything, which may take long.
        await self._writer.call(registry.check_move, record.name, record.version, label=label, movers=(by,), made=MADE)
        try:
            loads = await self._loader.load(
                record,
                known.serving,
                prove=not known.proved,
                pod=None,
                deadline=deadline or Deadline.after(load_s),
            )
            deadline = deadline or Deadline.after(load_s)
            comparison = await self._compared(loads[0], known, label, deadline)
            for engine in await self._writer.call(registry.engines_missing, record, label):
                proved = await self._loader.prove_on(engine, record, deadline=deadline)
                loads = (*loads, *proved)
        except (AnswersDiffer, LoadFailed) as exc:
            raise _refused(exc, record, label, known.current) from exc
        if comparison.refused:
            raise refusal(comparison, model=record.name, label=label)
        report = await self.contracts.keep(loads[0], record, label, deadline=deadline)
        return _Examined(loads, comparison, report)

    async def _compared(self, load: PodLoad, known: _Known, label: str, deadline: Deadline) -> Comparison:
        record, current = known.record, known.current
        if current == record.version:
            return Comparison(version=current, base=current, not_compared=f"{label} is at {current} already")
        version = Resolved(record, known.serving, None)
        return await self._loader.compare(load, version, base=current, deadline=deadline)


def _known(registry: Registry, model: str, version: str, label: str, op_id: str | None) -> _Known:
    """Read what a release needs to know. Blocks."""
    name = registry.find(check_model_id(model))
    record = registry.resolve(Reference(name, version))
    state = registry.state(name)
    made = op_id is not None and any(entry.op_id == op_id for entry in state.history)
    return _Known(record, state.serving_for(record), state.labels.get(label), registry.is_proved(record), made)


def _check_no_rollout(registry: Registry, model: str, label: str, version: str) -> None:
    check_free_to_move(model, registry.state(model), label, version)


def _refused(error: MarwayError, record: VersionRecord, label: str, current: str | None) -> MarwayError:
    stays = f"{label} stays at {current}" if current is not None else f"{label} is not set"
    return type(error)(f"{error.message}; {stays}", model=record.name, version=record.version)
