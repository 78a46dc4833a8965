"""What a publisher says of a version, and who that is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from marway.errors import InvalidRecord, clip
from marway.records import MAX_RECORD_BYTES, ServingSettings, Signature, TrainingFacts
from marway.refs import check_model_id

__all__ = ["RecordFacts", "read_facts"]


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
