"""The safe release: a label moves to a version that a pod has loaded, whose golden answers it has reproduced, and that
does not fail or answer in another form where the version before it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marway.answers.comparison_text import refusal
from marway.deadline import Deadline
from marway.errors import AnswersDiffer, LoadFailed, MarwayError
from marway.records import ServingSettings, VersionRecord
from marway.refs import Reference, check_label, check_model_id, check_version
from marway.registry import Change, Registry
from marway.wire.comparison import Comparison
from marway_gateway.admin.loading import Loader, PodLoad
from marway_gateway.admin.registry_writer import RegistryWriter
from marway_gateway.placement import Pod

__all__ = ["Release", "Releaser"]


@dataclass(frozen=True, slots=True)
class Release:
    """A label that was moved: the change, its model, where the version was loaded first, and how it compares."""

    model: str
    change: Change
    loads: Sequence[PodLoad]
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class _Known:
    """What the registry says of a version and a label, read at once."""

    record: VersionRecord
    serving: ServingSettings
    current: str | None
    proved: bool
    made: bool
    """Whether the very change that is asked for was made before, and only its answer was lost."""


class Releaser:
    """Moves labels.

    Args:
        loader: Loads and proves versions.
        writer: Changes the registry.
    """

    def __init__(self, loader: Loader, writer: RegistryWriter) -> None:
        self._loader = loader
        self._writer = writer

    async def release(
        self,
        model: str,
        version: str,
        *,
        label: str,
        if_currently: str | None,
        note: str | None,
        force: bool,
        timeout_s: float | None,
        by: str,
        op_id: str | None,
    ) -> Release:
        """Load a version, prove it unless that was done before, compare it, and move the label to it.

        Args:
            model: The model's name.
            version: Where to.
            label: Which label.
            if_currently: Only if the label points at this version now.
            note: Why, for the history.
            force: Move it with no load, no proof and no comparison; the history says so.
            timeout_s: How long all of it may take; None allows loading and comparing what the version says its load
                may take, each.
            by: Who asks, for the history.
            op_id: The caller's own name for this change, or None.

        Raises:
            InvalidReference, NotFound: There is no such version, or it cannot be a label.
            AnswersDiffer, LoadFailed, ArchiveCorrupt: The version is not what it should be; the label stays.
            ReleaseRefused: It is not like the version that the label points at; the label stays.
            StateConflict: The label is not at ``if_currently``, or was moved during the comparison.
            Unavailable, DeadlineExceeded: No pod could prove it; the label stays.
        """
        check_label(label)
        check_version(version)
        registry = self._writer.registry
        known = await self._writer.call(_known, registry, model, version, label, op_id)
        record = known.record
        loads: Sequence[PodLoad] = ()
        why = "it was released before" if known.made else "the release was forced"
        comparison = Comparison(version=version, base=known.current, not_compared=why)
        if not force and not known.made:
            seconds = timeout_s if timeout_s is not None else known.serving.load_timeout_s
            deadline = Deadline.after(seconds)
            try:
                loads = await self._loader.load(
                    record, known.serving, prove=not known.proved, pod=None, deadline=deadline
                )
                if timeout_s is None:
                    deadline = Deadline.after(seconds)
                comparison = await self._compared(loads[0].pod, record, label, known.current, deadline)
            except (AnswersDiffer, LoadFailed) as exc:
                raise _refused(exc, record, label, known.current) from exc
            if comparison.refused:
                raise refusal(comparison, model=record.name, label=label)
            if_currently = if_currently or known.current  # what it was compared with
        change = await self._writer.change(
            record.name,
            registry.release,
            record.name,
            version,
            label=label,
            if_currently=if_currently,
            note=note,
            forced=force,
            require_proof=True,
            by=by,
            op_id=op_id,
        )
        return Release(record.name, change, loads, comparison)

    async def _compared(
        self, pod: Pod, record: VersionRecord, label: str, current: str | None, deadline: Deadline
    ) -> Comparison:
        if current == record.version:
            return Comparison(version=current, base=current, not_compared=f"{label} is at {current} already")
        return await self._loader.compare(pod, record, current, deadline=deadline)


def _known(registry: Registry, model: str, version: str, label: str, op_id: str | None) -> _Known:
    """Read what a release needs to know. Blocks."""
    name = registry.find(check_model_id(model))
    record = registry.resolve(Reference(name, version))
    state = registry.state(name)
    made = op_id is not None and any(entry.op_id == op_id for entry in state.history)
    return _Known(record, state.serving_for(record), state.labels.get(label), registry.is_proved(record), made)


def _refused(error: MarwayError, record: VersionRecord, label: str, current: str | None) -> MarwayError:
    stays = f"{label} stays at {current}" if current is not None else f"{label} is not set"
    return type(error)(f"{error.message}; {stays}", model=record.name, version=record.version)
