"""What a publisher says of a version beside its archive, held against what the archive is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from marway.answers.golden import Tolerance
from marway.archives.entries import Entry, read_all
from marway.bundles import BUNDLE_BACKENDS, MAR_BACKENDS, BundleManifest, check_backend_of_mar
from marway.errors import InvalidArchive, InvalidInput, InvalidRecord, clip
from marway.records import MAX_RECORD_BYTES, BackendName, Signature, TrainingFacts
from marway.refs import check_backend, check_engine, check_model_id
from marway.serving import ServingSettings
from marway_archiver.bundles.layout import Layout

__all__ = [
    "ARCHIVE_FACTS",
    "TAKEN_OVER",
    "RecordFacts",
    "encode_archive_facts",
    "facts_of_bundle",
    "facts_of_mar",
    "read_facts",
    "tolerance_of",
    "with_archive_facts",
]


class RecordFacts(BaseModel):
    """What a publisher may say of a version: `--record FILE.json` and `publish(record=...)`.

    The rest of the record (name, version, digest, size, handler, time) comes from the archive itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str | None = None
    backend: BackendName = "torchserve"
    framework: str | None = None
    framework_version: str | None = None
    algorithm: str | None = None
    pool: str | None = None
    serving: ServingSettings = ServingSettings()
    signature: Signature = Signature()
    training: TrainingFacts = TrainingFacts()
    publisher: str | None = None


ARCHIVE_FACTS = "MAR-INF/facts.json"
"""What an imported model says of itself, for the record of its version; TorchServe does not look at it."""
_OF_ARCHIVES = ("algorithm", "framework", "framework_version", "signature")
TAKEN_OVER = RecordFacts.model_fields.keys() - {"id", "serving", "publisher"}
"""Fields that a record has as they are said."""


def read_facts(
    source: Mapping[str, Any] | Path | None, *, backend: str | None = None, engine: str | None = None
) -> RecordFacts:
    """Return the facts in ``source``, a mapping or a JSON file, and the backend and engine that are said beside them.

    Raises:
        InvalidRecord: It cannot be read, or holds a field that a publisher cannot set; the message says which.
        InvalidReference: The id, the backend or the engine is malformed.
    """
    facts = RecordFacts() if source is None else _read(source)
    if facts.id is not None:
        check_model_id(facts.id)
    if backend is not None:
        if "backend" in facts.model_fields_set and facts.backend != backend:
            raise InvalidRecord(f"the record says backend {facts.backend!r}, and {backend!r} is asked for: say it once")
        facts = facts.model_copy(update={"backend": check_backend(backend)})
    if engine is not None:
        said = facts.serving.engine
        if said not in (None, engine):
            raise InvalidRecord(f"the record says engine {said!r}, and {engine!r} is asked for: say it once")
        serving = facts.serving.model_copy(update={"engine": check_engine(engine)})
        facts = facts.model_copy(update={"serving": serving})
    return facts


def _read(source: Mapping[str, Any] | Path) -> RecordFacts:
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
        return RecordFacts.model_validate(source)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        known = ", ".join(RecordFacts.model_fields)
        hint = f"; fields are {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidRecord(f"{where}: {field}: {clip(first['msg'], 200)}{hint}") from exc


def facts_of_mar(facts: RecordFacts) -> RecordFacts:
    """Return the facts of a version whose archive is a `.mar`.

    Raises:
        InvalidArchive: They name a backend whose servers read a bundle.
        InvalidInput: The same of the engine.
    """
    check_backend_of_mar(facts.backend)
    if facts.serving.engine in BUNDLE_BACKENDS:
        raise InvalidInput(f"engine {facts.serving.engine}: its pods serve bundles, and this is a .mar")
    return facts


def encode_archive_facts(
    *, framework: str, framework_version: str | None, algorithm: str, signature: Signature
) -> bytes:
    """Return the `ARCHIVE_FACTS` of an archive that was made from a model which says this of itself."""
    facts = RecordFacts(
        framework=framework, framework_version=framework_version, algorithm=algorithm, signature=signature
    )
    document = facts.model_dump(mode="json", include=set(_OF_ARCHIVES), exclude_none=True)
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def with_archive_facts(facts: RecordFacts, entries: Mapping[str, Entry]) -> RecordFacts:
    """Return the facts of a version with what its archive says where its publisher said nothing.

    Raises:
        InvalidArchive: What it says is damaged.
    """
    entry = entries.get(ARCHIVE_FACTS)
    if entry is None:
        return facts
    try:
        said = RecordFacts.model_validate_json(read_all(entry, MAX_RECORD_BYTES))
    except ValidationError as exc:
        raise InvalidArchive(f"{ARCHIVE_FACTS} is damaged: pack the model again") from exc
    unsaid = [name for name in _OF_ARCHIVES if name not in facts.model_fields_set]
    return facts.model_copy(update={name: getattr(said, name) for name in unsaid})


def facts_of_bundle(facts: RecordFacts, manifest: BundleManifest, layout: Layout) -> RecordFacts:
    """Return the facts of a version whose archive is a bundle: what nobody said is taken from that.

    Raises:
        InvalidRecord: They say another backend than the bundle does.
        InvalidInput: Pods of the engine serve no bundles.
    """
    if "backend" in facts.model_fields_set and facts.backend != manifest.backend:
        raise InvalidRecord(
            f"the bundle was packed for the backend {manifest.backend}, and {facts.backend} is asked for: pack it for "
            "that one"
        )
    if facts.serving.engine in MAR_BACKENDS:
        raise InvalidInput(
            f"engine {facts.serving.engine}: its pods serve .mar archives, and this is a bundle for {manifest.backend}"
        )
    found: dict[str, Any] = {"backend": manifest.backend}
    if "signature" not in facts.model_fields_set:
        found["signature"] = layout.signature
    if facts.framework is None:
        found["framework"] = layout.framework
    return facts.model_copy(update=found)


def tolerance_of(number: float) -> Tolerance:
    """Return ``number`` as the relative and the absolute tolerance.

    Raises:
        InvalidInput: It is negative, above 1, or no number.
    """
    if not 0 <= number <= 1:
        raise InvalidInput(f"tolerance {number:g}: it must be from 0 to 1")
    return Tolerance(relative=number, absolute=number)
