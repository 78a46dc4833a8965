"""`--training-data FILE`: sums up what a version was trained on, for what it is asked later to be compared with."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Final

from marway.answers.bodies import document_rows
from marway.archives.entries import reason
from marway.errors import InvalidInput
from marway.features.collecting import Rows
from marway.features.summaries import fitted
from marway.redaction import Side, redaction_of
from marway.serving import ServingSettings
from marway_archiver.packing import StrPath
from marway_archiver.publishing.facts import RecordFacts
from marway_archiver.publishing.register import warn
from marway_archiver.publishing.training_rows import READERS, Row, rows_given

__all__ = ["TrainingData", "with_training_data"]

_PICTURES_MAX: Final = 2_000
"""Pictures that are looked at: each takes a millisecond to decode."""


TrainingData = StrPath | Iterable[Any]
"""A file, or the rows themselves."""


def with_training_data(facts: RecordFacts, source: TrainingData | None) -> RecordFacts:
    """Return facts with a summary of each field of the rows in ``source``; as they are without one.

    A row is what a caller would send, or has that under `input` and the answer under `output`; columns of a table may
    be called `input.age` and `output.label`. What the serving settings redact is left out, and where their drift rule
    names fields those are summed up. Of many rows 20,000 are looked at, drawn by chance.

    Raises:
        InvalidInput: It cannot be read, or holds no rows; the message says where, and what is wanted.
    """
    if source is None:
        return facts
    if facts.training.features:
        raise InvalidInput("the record has training.features, and training data is given: say it once")
    if not isinstance(source, str | PathLike):
        features = _summarized("the training data", rows_given(source), facts.serving)
    else:
        path = Path(source)
        read = READERS.get(path.suffix.lower())
        if read is None:
            raise InvalidInput(f"{path}: training data is a file that ends in {', '.join(READERS)}")
        try:
            features = _summarized(str(path), read(path), facts.serving)
        except OSError as exc:
            raise InvalidInput(f"{path} cannot be read: {reason(exc)}") from exc
        except UnicodeDecodeError as exc:
            raise InvalidInput(f"{path} is not UTF-8") from exc
    training = facts.training.model_copy(update={"features": features})
    return facts.model_copy(update={"training": training})


def _summarized(where: str, found: Iterable[Row], serving: ServingSettings) -> Mapping[str, Any]:
    fields = serving.drift.fields if serving.drift is not None else ()
    rows = Rows(fields)
    pictures = count = 0
    for row in found:
        count += 1
        kept = _redacted(row, serving.observe_redact)
        try:
            rows.add({side: document_rows(value) for side, value in kept.items()})
        except ModuleNotFoundError as exc:
            raise InvalidInput(
                f"{where} holds pictures, and their brightness needs the package {exc.name!r}: pip install "
                "'marway[observations]'"
            ) from exc
        pictures += any(isinstance(value, bytes) for value in kept.values())
        if pictures == _PICTURES_MAX:
            break
    if not count:
        raise InvalidInput(f"{where} holds no rows")
    found_features = rows.summarize()
    features = fitted(found_features)
    if not features:
        raise InvalidInput(
            f"{where}: nothing in its rows can be summed up: numbers, texts, true and false, and pictures can"
            + (f"; the drift rule names {', '.join(fields)}" if fields else "")
        )
    left_out = [name for name in found_features if name not in features]
    if left_out or rows.cut:
        more = f", such as {left_out[0]}" if left_out else ""
        warn(
            [
                f"{where} has more fields than a record has room for: {len(features)} are kept, the emptiest are "
                f"not{more}; name those that matter in serving.drift.fields"
            ]
        )
    return features


def _redacted(row: Row, expressions: tuple[str, ...]) -> Row:
    """Return a row without what may not be kept of predictions; it may not be kept of training data either."""
    if not expressions:
        return row
    redaction = redaction_of(expressions)
    kept: dict[Side, Any] = {}
    for side, value in row.items():
        if isinstance(value, bytes | str):
            data = value if isinstance(value, bytes) else value.encode(errors="replace")
            if redaction.body(side, data, "text/plain") is not None:
                kept[side] = value
        elif (left := redaction.body(side, json.dumps(value).encode(), "application/json")) is not None:
            kept[side] = json.loads(left)
    return kept
