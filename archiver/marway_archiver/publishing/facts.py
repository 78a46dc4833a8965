"""What a publisher says of a version, and who that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from marway.errors import InvalidRecord, clip
from marway.records import MAX_RECORD_BYTES, BackendName, ServingSettings, Signature, TrainingFacts
from marway.refs import check_backend, check_model_id

__all__ = ["RecordFacts", "read_facts"]


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


def read_facts(source: Mapping[str, Any] | Path | None, *, backend: str | None = None) -> RecordFacts:
    """Return the facts in ``source``, a mapping or a JSON file.

    Args:
        source: The facts; None means that there are none.
        backend: The backend, where it is said beside them.

    Raises:
        InvalidRecord: It cannot be read, or holds a field that a publisher cannot set; the message says which.
        InvalidReference: The id or the backend is malformed.
    """
    facts = _read(source)
    if facts.id is not None:
        check_model_id(facts.id)
    if backend is None:
        return facts
    if "backend" in facts.model_fields_set and facts.backend != backend:
        raise InvalidRecord(f"the record says backend {facts.backend!r}, and {backend!r} is asked for: say it once")
    return facts.model_copy(update={"backend": check_backend(backend)})


def _read(source: Mapping[str, Any] | Path | None) -> RecordFacts:
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
        return RecordFacts.model_validate(source)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "document"
        known = ", ".join(RecordFacts.model_fields)
        hint = f"; fields are {known}" if first["type"] == "extra_forbidden" else ""
        raise InvalidRecord(f"{where}: {field}: {clip(first['msg'], 200)}{hint}") from exc
