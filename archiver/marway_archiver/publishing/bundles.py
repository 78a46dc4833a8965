"""Publishes bundles: packed or checked, recorded, stored, and released if asked, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marway.answers.golden import DEFAULT_TOLERANCE, GoldenDocument
from marway.errors import InvalidArchive, InvalidInput
from marway.graphs import TABLE_BACKEND
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver.atomic_output import signals_raise
from marway_archiver.bundles.checking import BundleInfo, check_bundle
from marway_archiver.bundles.packing import PackedBundle, pack_bundle
from marway_archiver.packing import StrPath
from marway_archiver.progress import Phases, Progress
from marway_archiver.publishing.facts import RecordFacts, facts_of_bundle, read_facts, tolerance_of
from marway_archiver.publishing.locking import LockOptions
from marway_archiver.publishing.register import LabelMove, label_move, opened_registry, store, warn
from marway_archiver.publishing.training_data import TrainingData, with_training_data
from marway_archiver.verify import golden_beside, golden_of_registry, known_golden

__all__ = ["UNPROVED_BUNDLE", "publish_bundle", "store_bundle"]

UNPROVED_BUNDLE = (
    "there are no golden examples: nothing will show that the server answers as it should; give some, with their "
    "outputs, in examples=[...] or --examples FILE.jsonl"
)


def publish_bundle(
    *,
    model_name: str,
    version: str,
    backend: str,
    registry: str | Registry,
    directory: StrPath | None = None,
    server_model: str | None = None,
    create_registry: bool = False,
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    engine: str | None = None,
    note: str | None = None,
    gateway: str | None = None,
    force: bool = False,
    examples: Sequence[Any] = (),
    tolerance: float | None = None,
    training_data: TrainingData | None = None,
    progress: Progress | None = None,
) -> VersionRecord:
    """Pack a model server's directory as a bundle and publish it: the one call at the end of a training script.

    Args:
        model_name: As `pack_bundle` takes it, like ``version``, ``backend``, ``directory`` and ``server_model``.
        version: The model's version; it never changes once published.
        backend: The kind of model server that it is for.
        registry: As `publish` takes it, like what is not explained here.
        directory: One model as the server wants it; None for a server that has the model already.
        server_model: What a server that Marway does not manage calls the model.
        create_registry: Make the registry if there is none yet.
        label: Point this label at the version afterwards.
        record: Facts about the version; tensors and framework are the bundle's own where these say none.
        engine: Pods of this backend alone serve it.
        note: Why, for the label's history.
        gateway: URL of a gateway's admin port.
        force: Move the label without a proof.
        examples: Golden examples: `marway_archiver.Example`, each with its output.
        tolerance: How far numbers of equal answers may lie apart, relative and absolute; 1e-4 by default.
        training_data: What the version was trained on, as `publish` takes it.
        progress: Told about bytes packed and stored, as one.

    Raises:
        MarwayError: As `publish`.
    """
    facts = with_training_data(read_facts(record, backend=backend, engine=engine), training_data)
    release = label_move(label, note=note, gateway=gateway, force=force)
    opened = opened_registry(registry, create_registry=create_registry)
    tolerances = DEFAULT_TOLERANCE if tolerance is None else tolerance_of(tolerance)
    phases = Phases(2, progress)
    with signals_raise(), tempfile.TemporaryDirectory(prefix="marway-publish-") as scratch:
        packed = pack_bundle(
            model_name=model_name,
            version=version,
            backend=backend,
            directory=directory,
            server_model=server_model,
            export_path=scratch,
            examples=examples,
            tolerance=tolerances,
            progress=phases.next(),
        )
        stored = _stored(packed, facts, opened, release, create_registry=create_registry, progress=phases.next())
        phases.end()
        return stored


def store_bundle(
    path: Path,
    facts: RecordFacts,
    registry: Callable[[], Registry],
    release: LabelMove | None,
    *,
    create_registry: bool,
    lock: LockOptions,
    golden: StrPath | None,
    tolerance: float | None,
    progress: Progress | None,
) -> VersionRecord:
    """Publish a bundle that is a file already; the arguments are as `publish_archive` has them.

    Raises:
        InvalidArchive: It is refused, or its golden answers are nowhere.
        InvalidInput: Requirements are to be locked, which a bundle has none of.
        MarwayError: As `publish_archive`.
    """
    if not lock.lock or lock.targets:
        flag = "--lock-for" if lock.lock else "--no-lock"
        raise InvalidInput(f"{flag}: a bundle has no requirements that could be locked: what it needs, its server has")
    phases = Phases(2, progress)
    with signals_raise():
        info = check_bundle(path, progress=phases.next())
        facts_of_bundle(facts, info.packed.manifest, info.layout)  # before the registry is opened
        opened = registry()
        document = _golden(info, golden, opened)
        if document is not None and tolerance is not None:
            document = document.model_copy(update={"tolerance": tolerance_of(tolerance)})
        packed = replace(info.packed, golden=document)
        stored = _stored(packed, facts, opened, release, create_registry=create_registry, progress=phases.next())
        phases.end()
        return stored


def _golden(info: BundleInfo, given: StrPath | None, registry: Registry) -> GoldenDocument | None:
    """Return the answers to a bundle's golden examples: those given, beside it, or published before."""
    document = known_golden(info.path, given, info)
    if document is None and info.examples:
        document = golden_of_registry(registry, info)
        if document is None:
            raise InvalidArchive(
                f"{info.path} carries golden examples, and the answers to them are not there: they are in the "
                f"{golden_beside(info.path).name} that `marway pack` wrote beside it"
            )
    return document


def _stored(
    packed: PackedBundle,
    facts: RecordFacts,
    registry: Registry,
    release: LabelMove | None,
    *,
    create_registry: bool,
    progress: Progress | None,
) -> VersionRecord:
    if packed.golden is None and packed.manifest.backend != TABLE_BACKEND:  # a table gives rows, and no answers
        warn([UNPROVED_BUNDLE])
    return store(
        packed,
        facts_of_bundle(facts, packed.manifest, packed.layout),
        registry,
        create_registry=create_registry,
        lock=LockOptions(),
        release=release,
        progress=progress,
    )
