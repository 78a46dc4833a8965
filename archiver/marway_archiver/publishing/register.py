"""Stores a packed archive as a version: record, golden document, proof, label."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from marway.admin_client import AdminClient, admin_from_environment, comparison_of
from marway.direct_release import release_directly
from marway.errors import InvalidArchive, InvalidInput, clip
from marway.process.identity import this_user
from marway.records import ArchiveRef, Proof, ServingSettings, VersionRecord, utc_now
from marway.refs import check_label, new_model_id
from marway.registry import Registry, open_registry
from marway.wire.comparison import remarks
from marway_archiver.packing import PackedArchive
from marway_archiver.progress import Progress
from marway_archiver.proving.proof import PackProof
from marway_archiver.publishing.facts import RecordFacts

__all__ = ["UNPROVED", "LabelMove", "label_move", "opened_registry", "store", "warn"]

logger = logging.getLogger(__name__)

UNPROVED = (
    "there are no golden examples: nothing shows that the handler works, and requests will be served one at a time; "
    "give some with examples=[...] or --example"
)


@dataclass(frozen=True, slots=True)
class LabelMove:
    """The label that a publish moves at its end.

    Attributes:
        label: Which.
        note: Why, for the history.
        gateway: The admin port through which it moves, once a pod has proved the version; None for the registry itself.
        force: Move it without a proof; said in the history.
    """

    label: str
    note: str | None
    gateway: AdminClient | None
    force: bool


def store(
    packed: PackedArchive,
    facts: RecordFacts,
    registry: Registry,
    *,
    create_registry: bool,
    release: LabelMove | None,
    progress: Progress | None,
) -> VersionRecord:
    """Publish a version and move the label, if there is one; the record says whether it may be batched.

    Raises:
        InvalidArchive: Its configuration asks for more workers than its serving settings allow.
    """
    _check_workers(packed, facts.serving)
    if create_registry:
        registry.create()
    model = packed.manifest.model
    golden = packed.golden
    serving = facts.serving
    if golden is None or not golden.batch:
        serving = serving.model_copy(update={"max_batch_rows": 1})
    if packed.proof is not None and packed.proof.streaming:
        serving = serving.model_copy(update={"streaming": True})
    warn(packed.warnings)
    try:
        record = VersionRecord(
            id=facts.id or new_model_id(),
            name=model.model_name,
            version=model.model_version,
            archive=ArchiveRef(sha256=packed.sha256, size_bytes=packed.size_bytes),
            backend=facts.backend,
            framework=facts.framework,
            framework_version=facts.framework_version,
            algorithm=facts.algorithm,
            pool=facts.pool,
            handler=model.handler,
            serving=serving,
            signature=facts.signature,
            golden_sha256=None if golden is None else golden.sha256,
            training=facts.training,
            created_at=utc_now(),
            publisher=facts.publisher or this_user(),
        )
    except ValidationError as exc:
        raise InvalidInput(f"{packed.path}: {clip(exc.errors(include_url=False)[0]['msg'], 300)}") from exc
    document = None if golden is None else golden.encode()
    stored = registry.publish(record, packed.path, golden=document, progress=progress)
    if stored.backend != record.backend:
        warn([f"{stored.name} {stored.version} was published before, for the backend {stored.backend}: it stays so"])
    if packed.proof is not None:
        _prove(registry, packed.proof, stored)
    if release is not None:
        _move(registry, stored, release)
    return stored


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
    return LabelMove(check_label(label), note, None if force else admin_from_environment(gateway), force)


def _move(registry: Registry, stored: VersionRecord, release: LabelMove) -> None:
    """Move a label to a version that was just stored, and warn of what it does otherwise than the one before.

    Raises:
        ProofMissing: There is no gateway that could have a pod prove it, and the label points elsewhere.
        ReleaseRefused: It fails, is not finite or answers in another form where the version before does not.
        MarwayError: What the gateway says; the label stays where it was.
    """
    if release.gateway is not None:
        done = release.gateway.release(
            stored.name, stored.version, label=release.label, note=release.note, by=stored.publisher
        )
        warn(remarks(comparison_of(done)))
        return
    change, comparison = release_directly(
        registry,
        stored.name,
        stored.version,
        label=release.label,
        note=release.note,
        force=release.force,
        unproved_first=True,
        by=stored.publisher,
    )
    if not release.force:
        warn(remarks(comparison))
    if change.entry.forced and not release.force:
        warn([f"{release.label} was set for the first time, to a version that no pod has proved: there is no gateway"])


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
    wanted = packed.config.min_workers if packed.config is not None else None
    if wanted is not None and serving.max_workers is not None and wanted > serving.max_workers:
        raise InvalidArchive(
            f"the archive's {packed.manifest.model.config_file} says minWorkers {wanted}, and the serving settings "
            f"allow {serving.max_workers} (max_workers): TorchServe would start {wanted}; change one of them"
        )
