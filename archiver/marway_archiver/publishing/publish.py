"""Publishes a version: packed or checked, proved, recorded, stored, and released if asked, in one call."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver.archives import opened_archive, repack
from marway_archiver.atomic_output import signals_raise
from marway_archiver.bundles.checking import names_bundle
from marway_archiver.packing import PackedArchive, StrPath, pack
from marway_archiver.progress import Phases, Progress
from marway_archiver.proving.examples import check_examples_type
from marway_archiver.proving.runs import Predict, ProofPlan
from marway_archiver.publishing.bundles import store_bundle
from marway_archiver.publishing.facts import RecordFacts, facts_of_mar, read_facts, tolerance_of, with_archive_facts
from marway_archiver.publishing.locking import LockOptions
from marway_archiver.publishing.register import UNPROVED, label_move, opened_registry, store, warn
from marway_archiver.publishing.training_data import TrainingData, with_training_data
from marway_archiver.verify import known_golden, prove

__all__ = ["publish", "publish_archive"]


def publish(
    *,
    model_name: str,
    version: str,
    handler: str,
    registry: str | Registry,
    create_registry: bool = False,
    model_file: StrPath | None = None,
    serialized_file: StrPath | None = None,
    extra_files: str | Sequence[StrPath] | None = None,
    requirements_file: StrPath | None = None,
    config_file: StrPath | None = None,
    runtime: str = "python",
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    backend: str | None = None,
    engine: str | None = None,
    note: str | None = None,
    gateway: str | None = None,
    force: bool = False,
    lock: bool = True,
    lock_for: Sequence[str] = (),
    examples: Sequence[Any] = (),
    tolerance: float | None = None,
    predict: Predict | None = None,
    training_data: TrainingData | None = None,
    progress: Progress | None = None,
) -> VersionRecord:
    """Pack, prove and publish a model: the one call at the end of a training script.

    The handler answers the golden examples in a process of its own, singly and in batches; where the two differ, or
    nothing shows that they do not, the version is served one row at a time, and a warning says why.

    Args:
        model_name: As `pack` takes it, like the arguments up to ``runtime``.
        version: The model's version; it never changes once published.
        handler: Handler file, or the name of one of TorchServe's own.
        model_file: Python file with the model's class.
        serialized_file: Weights.
        extra_files: Files and directories that the handler needs.
        requirements_file: pip requirements of this model.
        config_file: Model configuration (YAML).
        runtime: `python`, `python3` or `LSP`.
        registry: A registry or its URL, such as ``file:///models`` or ``s3://bucket/prefix``.
        create_registry: Make the registry if there is none yet: the first publish to a new one says so. Without it an
            empty place is refused, as it may be the mount point of a volume that is gone.
        label: Point this label at the version afterwards, such as ``PROD``. A label that points at another version
            moves only when a pod has proved this one, which needs ``gateway``; one that points nowhere is set anyway.
        record: Facts about the version, as `RecordFacts`.
        backend: The kind of model server that the archive is for; ``torchserve`` where neither this nor the record says
            one.
        engine: Pods of this backend alone serve it, such as ``native``; all that serve ``backend`` where neither this
            nor the record's serving settings say one.
        note: Why, for the label's history.
        gateway: URL of a gateway's admin port, which has a pod prove the version and then moves the label; else
            ``MARWAY_GATEWAY_ADMIN_URL``. A token for it comes from ``MARWAY_TOKEN`` or ``MARWAY_TOKEN_FILE``.
        force: Move the label without a proof, in the registry itself; the history says so.
        lock: Whether requirements are locked: each comes to one wheel, which is kept in the registry, and pods install
            these and nothing else. Without, pods serve the version only where they have what it requires.
        lock_for: What they are locked for, such as ``3.11/linux-x86_64``; this Python when nothing is named.
        examples: Golden examples: inputs, or `marway_archiver.Example` with the output that is expected.
        tolerance: How far numbers of equal answers may lie apart, relative and absolute; 1e-4 by default.
        predict: Answers the examples where TorchServe is not installed: takes the inputs as a handler sees them
            (JSON values, str, bytearray), returns as many answers.
        training_data: What the version was trained on, as a JSONL, CSV or Parquet file or as rows: each what a caller
            would send, or a mapping of `input` and `output`. The record has a summary of each field, which `marway
            drift` compares later ones with.
        progress: Told about bytes packed and stored, as one.

    Returns:
        The stored record.

    Raises:
        InvalidArchive, InvalidRecord, InvalidReference, LoadFailed: Nothing was stored.
        VersionConflict: The version exists with other bytes.
        RegistryUnavailable: There is no registry, or it cannot be written.
        ProofMissing, AnswersDiffer, ReleaseRefused, ContractBroken, LabelProtected: The version is stored, and the
            label stays where it was.
    """
    facts = facts_of_mar(read_facts(record, backend=backend, engine=engine))
    facts = with_training_data(facts, training_data)
    wish = LockOptions.of(lock, lock_for)
    release = label_move(label, note=note, gateway=gateway, force=force)
    opened = opened_registry(registry, create_registry=create_registry)
    examples = check_examples_type(examples)
    if not examples:
        warn([UNPROVED])
    phases = Phases(2, progress)
    with signals_raise(), tempfile.TemporaryDirectory(prefix="marway-publish-") as directory:
        packed = pack(
            model_name=model_name,
            version=version,
            handler=str(handler),
            model_file=model_file,
            serialized_file=serialized_file,
            extra_files=extra_files,
            requirements_file=requirements_file,
            config_file=config_file,
            runtime=runtime,
            export_path=directory,
            examples=examples,
            plan=_plan(facts, tolerance),
            predict=predict,
            progress=phases.next(),
        )
        stored = store(
            packed,
            facts,
            opened,
            create_registry=create_registry,
            lock=wish,
            release=release,
            progress=phases.next(),
        )
        phases.end()
        return stored


def publish_archive(
    archive: StrPath,
    *,
    registry: str | Registry,
    create_registry: bool = False,
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    backend: str | None = None,
    engine: str | None = None,
    note: str | None = None,
    gateway: str | None = None,
    force: bool = False,
    lock: bool = True,
    lock_for: Sequence[str] = (),
    golden: StrPath | None = None,
    tolerance: float | None = None,
    training_data: TrainingData | None = None,
    progress: Progress | None = None,
) -> tuple[VersionRecord, bool]:
    """Publish a `.mar`, also one that torch-model-archiver made, or a bundle.

    ``archive`` is checked from end to end, and written canonically if it is not. Golden examples that it carries are
    answered again, by its handler in a process of its own, and must be what its ``golden`` document says; by default
    that is ``ARCHIVE.golden.json`` beside it, if it is there. Where TorchServe is not installed, that document stands
    for the run, as it does for a bundle: no server is asked. The other arguments are those of `publish`; ``tolerance``
    is the golden document's otherwise.

    Returns:
        The stored record, and whether the archive had to be re-packed.

    Raises:
        MarwayError: As `publish`.
    """
    facts = with_training_data(read_facts(record, backend=backend, engine=engine), training_data)
    wish = LockOptions.of(lock, lock_for)
    release = label_move(label, note=note, gateway=gateway, force=force)
    path = Path(archive)
    if names_bundle(path):
        opener = partial(opened_registry, registry, create_registry=create_registry)
        stored = store_bundle(
            path,
            facts,
            opener,
            release,
            create_registry=create_registry,
            lock=wish,
            golden=golden,
            tolerance=tolerance,
            progress=progress,
        )
        return stored, False
    facts = facts_of_mar(facts)
    phases = Phases(3, progress)
    with signals_raise(), tempfile.TemporaryDirectory(prefix="marway-publish-") as directory:
        with opened_archive(path, progress=phases.next()) as (info, entries):
            assert info.manifest is not None
            facts = with_archive_facts(facts, entries)
            opened = opened_registry(registry, create_registry=create_registry)
            if not info.examples:
                warn([UNPROVED])
            known = known_golden(path, golden, info)
            plan = _plan(facts, tolerance)
            if known is not None and tolerance is None:
                plan = replace(plan, tolerance=known.tolerance)
            proved = prove(info, entries, known, plan)
            packed = PackedArchive(info.path, info.sha256, info.size_bytes, info.manifest)
        repacking = phases.next()
        if not info.canonical:
            packed = repack(path, directory, progress=repacking)
            proved = proved.of_archive(packed.sha256)
        document, proof, warnings = proved
        packed = replace(packed, warnings=(*info.warnings, *warnings), config=info.config, golden=document, proof=proof)
        stored = store(
            packed,
            facts,
            opened,
            create_registry=create_registry,
            lock=wish,
            release=release,
            progress=phases.next(),
        )
        phases.end()
        return stored, not info.canonical


def _plan(facts: RecordFacts, tolerance: float | None) -> ProofPlan:
    serving = facts.serving
    plan = ProofPlan(
        max_batch_rows=serving.max_batch_rows,
        max_batch_bytes=serving.max_batch_bytes,
        load_timeout_s=serving.load_timeout_s,
        call_timeout_s=serving.predict_timeout_s,
    )
    return plan if tolerance is None else replace(plan, tolerance=tolerance_of(tolerance))
