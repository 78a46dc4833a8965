"""Stores a packed archive as a version: what its publisher says of it, golden document, proof, label."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from marway.admin_client import AdminClient, admin_from_environment, comparison_of
from marway.direct_release import release_directly
from marway.environments.lock import EnvironmentLock
from marway.errors import InvalidArchive, InvalidInput, NotFound, clip
from marway.process.identity import this_user
from marway.records import ArchiveRef, Proof, VersionRecord, utc_now
from marway.refs import check_label, new_model_id
from marway.registry import Registry, open_registry
from marway.serving import ServingSettings
from marway.wire.comparison import remarks
from marway_archiver.bundles.packing import PackedBundle
from marway_archiver.packing import PackedArchive
from marway_archiver.progress import Progress
from marway_archiver.proving.proof import PackProof
from marway_archiver.publishing.facts import TAKEN_OVER, RecordFacts
from marway_archiver.publishing.locking import Locked, LockOptions, lock_requirements
from marway_archiver.publishing.training_check import unsent

__all__ = ["UNPROVED", "LabelMove", "label_move", "opened_registry", "store", "warn"]

logger = logging.getLogger(__name__)

UNPROVED = (
    "there are no golden examples: nothing shows that the handler works, and requests will be served one at a time; "
    "give some with examples=[...] or --example"
)


LabelMove = Callable[[Registry, VersionRecord], None]
"""Moves a label to a version that was just stored."""


def store(
    packed: PackedArchive | PackedBundle,
    facts: RecordFacts,
    registry: Registry,
    *,
    create_registry: bool,
    lock: LockOptions,
    release: LabelMove | None,
    progress: Progress | None,
) -> VersionRecord:
    """Publish a version and move the label, if there is one; the record says whether it may be batched.

    Its requirements are locked before anything is stored.

    Raises:
        InvalidArchive: Its configuration asks for more workers than its serving settings allow, or its requirements
            cannot be locked.
    """
    if isinstance(packed, PackedArchive):
        _check_workers(packed, facts.serving)
    with tempfile.TemporaryDirectory(prefix="marway-lock-") as directory:
        locked = _locked(packed, registry, lock, Path(directory))
        if facts.training.features:
            warn(unsent(packed.path, packed.kind, facts.training.features))
        if create_registry:
            registry.create()
        stored = registry.publish(
            record := _record(packed, facts, locked.locks),
            packed.path,
            golden=None if packed.golden is None else packed.golden.encode(),
            wheels=locked.files,
            progress=progress,
        )
    if stored.backend != record.backend:
        warn([f"{stored.name} {stored.version} was published before, for the backend {stored.backend}: it stays so"])
    if stored.serving.engine != record.serving.engine:
        before = stored.serving.engine or "any engine"
        warn([f"{stored.name} {stored.version} was published before, for {before}: `marway serving` changes that"])
    if stored.environments != record.environments:
        was = "locked to other wheels" if stored.environments else "without a lock of its requirements"
        warn([f"{stored.name} {stored.version} was published before, {was}: it stays so"])
    if stored.training.features != record.training.features:
        was = "with another summary" if stored.training.features else "without a summary"
        warn([f"{stored.name} {stored.version} was published before, {was} of its training data: it stays so"])
    if isinstance(packed, PackedArchive) and packed.proof is not None:
        _prove(registry, packed.proof, stored)
    if release is not None:
        release(registry, stored)
    return stored


def _record(
    packed: PackedArchive | PackedBundle, facts: RecordFacts, locks: tuple[EnvironmentLock, ...]
) -> VersionRecord:
    """Return the record to store, and warn of what may surprise."""
    golden = packed.golden
    name, version = packed.model
    warn(packed.warnings)
    try:
        return VersionRecord(
            id=facts.id or new_model_id(),
            name=name,
            version=version,
            archive=ArchiveRef(sha256=packed.sha256, size_bytes=packed.size_bytes, kind=packed.kind),
            handler=packed.handler,
            serving=_serving(packed, facts.serving),
            golden_sha256=None if golden is None else golden.sha256,
            sequences=packed.config.sequences if isinstance(packed, PackedArchive) and packed.config else None,
            environments=locks,
            created_at=utc_now(),
            publisher=facts.publisher or this_user(),
            **{name: getattr(facts, name) for name in TAKEN_OVER},
        )
    except ValidationError as exc:
        raise InvalidInput(f"{packed.path}: {clip(exc.errors(include_url=False)[0]['msg'], 300)}") from exc


def _serving(packed: PackedArchive | PackedBundle, serving: ServingSettings) -> ServingSettings:
    """Return the settings of a version.

    Rows are batched where that is proved; of a bundle, as its publisher says, else as the server's own configuration.
    """
    changes: dict[str, object] = {}
    if isinstance(packed, PackedBundle):
        if "max_batch_rows" not in serving.model_fields_set:
            changes["max_batch_rows"] = packed.layout.rows_max
    elif packed.golden is None or not packed.golden.batch:
        changes["max_batch_rows"] = 1
    if packed.streaming:
        changes["streaming"] = True
    return serving.model_copy(update=changes)


def _locked(packed: PackedArchive | PackedBundle, registry: Registry, wish: LockOptions, directory: Path) -> Locked:
    """Return what the archive's requirements come to: as it was stored, where the version is there and whole."""
    requirements = packed.manifest.model.requirements_file if isinstance(packed, PackedArchive) else None
    if not wish.lock or requirements is None:
        return Locked()
    with contextlib.suppress(NotFound):
        stored = registry.record(*packed.model)
        wheels = [wheel for lock in stored.environments for wheel in lock.wheels]
        same = stored.archive.sha256 == packed.sha256 and wheels
        if same and all(registry.wheel_bytes(wheel.sha256) for wheel in wheels):
            return Locked(stored.environments)
    return lock_requirements(packed.path, requirements, directory, wish, stored=registry.wheel_bytes)


def opened_registry(registry: str | Registry, *, create_registry: bool) -> Registry:
    """Return a registry, refused before any work is done for it where it is not there.

    Raises:
        RegistryUnavailable: There is none, and it is not to be made.
    """
    opened = open_registry(registry) if isinstance(registry, str) else registry
    if not create_registry:
        opened.check_there()
    return opened


def label_move(label: str | None, *, note: str | None, gateway: str | None, force: bool) -> LabelMove | None:
    """Return the move that a publish ends with, or None for no label.

    Raises:
        InvalidReference: It cannot be a label.
        InvalidSettings: The gateway is no URL, or the token for it cannot be read.
    """
    if label is None:
        return None
    client = None if force else admin_from_environment(gateway)
    return partial(_move, label=check_label(label), note=note, gateway=client, force=force)


def _move(
    registry: Registry,
    stored: VersionRecord,
    *,
    label: str,
    note: str | None,
    gateway: AdminClient | None,
    force: bool,
) -> None:
    """Move a label to a version that was just stored, and warn of what it does otherwise than the one before.

    Raises:
        ProofMissing: There is no gateway that could have a pod prove it, and the label points elsewhere.
        ReleaseRefused: It fails, is not finite or answers in another form where the version before does not.
        MarwayError: What the gateway says; the label stays where it was.
    """
    name, version, by = stored.name, stored.version, stored.publisher
    if gateway is not None:
        warn(remarks(comparison_of(gateway.release(name, version, label=label, note=note, by=by))))
        return
    change, comparison = release_directly(
        registry, name, version, label=label, note=note, force=force, unproved_first=True, by=by
    )
    if force:
        return
    warn(remarks(comparison))
    if change.entry.forced:
        warn([f"{label} was set for the first time, to a version that no pod has proved: there is no gateway"])


def _prove(registry: Registry, proof: PackProof, stored: VersionRecord) -> None:
    if proof.golden_sha256 != stored.golden_sha256:
        return  # published before, with other golden answers: within the tolerance, but not what this run reproduced
    registry.prove(
        Proof(
            kind="pack",
            archive_sha256=proof.archive_sha256,
            server="torchserve",
            server_versions=proof.versions,
            golden_sha256=proof.golden_sha256,
            duration_s=proof.duration_s,
            at=utc_now(),
            by=stored.publisher,
        )
    )


def warn(warnings: Iterable[str]) -> None:
    """Log each warning: without any configuration of logging, Python shows it on stderr."""
    for warning in warnings:
        logger.warning("warning: %s", warning, extra={"warning": warning})  # the command has its own way to say it


def _check_workers(packed: PackedArchive, serving: ServingSettings) -> None:
    """Refuse an archive whose own configuration would beat the record: TorchServe starts what the archive says."""
    config = packed.config
    wanted = config.min_workers if config is not None and config.sequences is None else None
    if wanted is not None and serving.max_workers is not None and wanted > serving.max_workers:
        raise InvalidArchive(
            f"the archive's {packed.manifest.model.config_file} says minWorkers {wanted}, and the serving settings "
            f"allow {serving.max_workers} (max_workers): TorchServe would start {wanted}; change one of them"
        )
