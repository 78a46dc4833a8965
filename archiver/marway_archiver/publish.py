"""Publishes a version: packed or checked, recorded, stored, and released if asked, in one call."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from marway.errors import InvalidInput, InvalidRecord, clip
from marway.identity import me
from marway.objects import Progress, open_store
from marway.records import (
    MAX_RECORD_BYTES,
    ArchiveRef,
    ServingSettings,
    Signature,
    TrainingFacts,
    VersionRecord,
    utc_now,
)
from marway.refs import check_label, check_model_id, new_model_id
from marway.registry import Registry
from marway_archiver.archives import check_archive, repack
from marway_archiver.packing import PackedArchive, StrPath, pack

__all__ = ["RecordFacts", "publish", "publish_archive", "read_facts"]


class RecordFacts(BaseModel):
    """What a publisher may say of a version: `--record FILE.json` and `publish(record=...)`.

    The rest of the record (name, version, digest, size, handler, time) comes from the archive itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    framework: str | None = None
    framework_version: str | None = None
    algorithm: str | None = None
    pool: str | None = None
    serving: ServingSettings = ServingSettings()
    signature: Signature = Signature()
    training: TrainingFacts = TrainingFacts()
    publisher: str | None = None


def read_facts(source: Mapping[str, Any] | Path | None) -> RecordFacts:
    """Return the facts in ``source``, a mapping or a JSON file.

    Raises:
        InvalidRecord: It cannot be read, or holds a field that a publisher cannot set; the message says which.
    """
    if source is None:
        return RecordFacts()
    where = "record"
    if isinstance(source, Path):
        where = str(source)
        try:
            if source.stat().st_size > MAX_RECORD_BYTES:
                raise InvalidRecord(f"{where} has more than {MAX_RECORD_BYTES} bytes: keep large facts elsewhere")
            source = json.loads(source.read_bytes())
        except OSError as exc:
            raise InvalidRecord(f"cannot read {where}: {exc.strerror}") from exc
        except ValueError as exc:
            raise InvalidRecord(f"{where} is not JSON: {exc}") from exc
    try:
        facts = RecordFacts.model_validate(source)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        known = ", ".join(RecordFacts.model_fields)
        hint = f"; fields are {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidRecord(f"{where}: {field}: {clip(first['msg'], 200)}{hint}") from exc
    if facts.id is not None:
        check_model_id(facts.id)
    return facts


def publish_archive(
    archive: StrPath,
    *,
    registry: str | Registry,
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> tuple[VersionRecord, bool]:
    """Publish a `.mar`, also one that torch-model-archiver made.

    Args:
        archive: The file; it is checked from end to end, and written canonically if it is not.
        registry: A registry or its URL.
        label: Point this label at the version afterwards.
        record: Facts about the version, as `RecordFacts`.
        note: Why, for the label's history.
        progress: Told about bytes stored.

    Returns:
        The stored record, and whether the archive had to be re-packed.

    Raises:
        InvalidArchive, InvalidRecord, InvalidReference: Nothing was stored.
        VersionConflict: The version exists with other bytes.
    """
    facts = read_facts(record)
    if label is not None:
        check_label(label)
    info = check_archive(archive)
    if info.canonical:
        assert info.manifest is not None
        packed = PackedArchive(info.path, info.sha256, info.size_bytes, info.manifest, info.warnings)
        return _store(packed, facts, registry, label=label, note=note, progress=progress), False
    with tempfile.TemporaryDirectory(prefix="marway-publish-") as directory:
        packed = repack(archive, directory)
        return _store(packed, facts, registry, label=label, note=note, progress=progress), True


def publish(
    *,
    model_name: str,
    version: str,
    handler: str,
    registry: str | Registry,
    model_file: StrPath | None = None,
    serialized_file: StrPath | None = None,
    extra_files: str | Sequence[StrPath] | None = None,
    requirements_file: StrPath | None = None,
    config_file: StrPath | None = None,
    runtime: str = "python",
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    note: str | None = None,
    progress: Progress | None = None,
) -> VersionRecord:
    """Pack and publish a model: the one call at the end of a training script.

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
        label: Point this label at the version afterwards, such as ``PROD``.
        record: Facts about the version, as `RecordFacts`.
        note: Why, for the label's history.
        progress: Told about bytes stored.

    Returns:
        The stored record.

    Raises:
        InvalidArchive, InvalidRecord, InvalidReference: Nothing was stored.
        VersionConflict: The version exists with other bytes.
    """
    facts = read_facts(record)
    if label is not None:
        check_label(label)
    with tempfile.TemporaryDirectory(prefix="marway-publish-") as directory:
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
        )
        return _store(packed, facts, registry, label=label, note=note, progress=progress)


def _store(
    packed: PackedArchive,
    facts: RecordFacts,
    registry: str | Registry,
    *,
    label: str | None,
    note: str | None,
    progress: Progress | None,
) -> VersionRecord:
    if isinstance(registry, str):
        registry = Registry(open_store(registry))
    model = packed.manifest.model
    try:
        record = VersionRecord(
            id=facts.id or new_model_id(),
            name=model.model_name,
            version=model.model_version,
            archive=ArchiveRef(sha256=packed.sha256, size_bytes=packed.size_bytes),
            framework=facts.framework,
            framework_version=facts.framework_version,
            algorithm=facts.algorithm,
            pool=facts.pool,
            handler=model.handler,
            serving=facts.serving,
            signature=facts.signature,
            training=facts.training,
            created_at=utc_now(),
            publisher=facts.publisher or me(),
        )
    except ValidationError as exc:
        raise InvalidInput(f"{packed.path}: {clip(exc.errors(include_url=False)[0]['msg'], 300)}") from exc
    stored = registry.publish(record, packed.path, progress=progress)
    if label is not None:
        registry.release(stored.name, stored.version, label=label, note=note, by=stored.publisher)
    return stored
