"""The safe release: a label moves to a version that a pod has loaded and whose golden answers it has reproduced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marway.deadline import Deadline
from marway.errors import AnswersDiffer, LoadFailed, MarwayError
from marway.records import ServingSettings, VersionRecord
from marway.refs import Reference, check_label, check_model_id, check_version
from marway.registry import Change, Registry
from marway_gateway.loading import Loader, PodLoad
from marway_gateway.writing import RegistryWriter

__all__ = ["Release", "Releaser"]


@dataclass(frozen=True, slots=True)
class Release:
    """A label that was moved: the change, its model, and where the version was loaded first."""

    model: str
    change: Change
    loads: Sequence[PodLoad]


@dataclass(frozen=True, slots=True)
class _Known:
    """What the registry says of a version and a label, read at once."""

    record: VersionRecord
    serving: ServingSettings
    current: str | None
    proved: bool


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
        """Load a version, prove it unless that was done before, and move the label to it.

        Args:
            model: The model's name.
            version: Where to.
            label: Which label.
            if_currently: Only if the label points at this version now.
            note: Why, for the history.
            force: Move it with no load and no proof; the history says so.
            timeout_s: How long loading and proving may take; None allows what the version says its load may take.
            by: Who asks, for the history.
            op_id: The caller's own name for this change, or None.

        Raises:
            InvalidReference, NotFound: There is no such version, or it cannot be a label.
            AnswersDiffer, LoadFailed, ArchiveCorrupt: The version is not what it should be; the label stays.
            StateConflict: The label is not at ``if_currently``.
            Unavailable, DeadlineExceeded: No pod could prove it; the label stays.
        """
        check_label(label)
        check_version(version)
        registry = self._writer.registry
        known = await self._writer.call(_known, registry, model, version, label)
        record = known.record
        loads: Sequence[PodLoad] = ()
        if not force:
            seconds = timeout_s if timeout_s is not None else known.serving.load_timeout_s
            try:
                loads = await self._loader.load(
                    record, known.serving, prove=not known.proved, pod=None, deadline=Deadline.after(seconds)
                )
            except (AnswersDiffer, LoadFailed) as exc:
                raise _refused(exc, record, label, known.current) from exc
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
        return Release(record.name, change, loads)


def _known(registry: Registry, model: str, version: str, label: str) -> _Known:
    """Read what a release needs to know. Blocks."""
    name = registry.find(check_model_id(model))
    record = registry.resolve(Reference(name, version))
    state = registry.state(name)
    return _Known(record, state.serving_for(record), state.labels.get(label), registry.is_proved(record))


def _refused(error: MarwayError, record: VersionRecord, label: str, current: str | None) -> MarwayError:
    stays = f"{label} stays at {current}" if current is not None else f"{label} is not set"
    return type(error)(f"{error.message}; {stays}", model=record.name, version=record.version)
