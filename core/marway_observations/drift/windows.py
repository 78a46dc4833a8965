"""The rows of a version in a window of time: an even sample of those whose bodies were kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb

from marway.answers.bodies import parts_of
from marway.features.collecting import Rows
from marway.features.sampling import SAMPLE_ROWS
from marway.objects import ObjectStore
from marway_observations.reading import LeftOut, Observed
from marway_observations.schema import CALLERS

__all__ = ["PICTURES_SAMPLE_ROWS", "Window", "window_of"]

PICTURES_SAMPLE_ROWS: Final = 2_000
"""The same where most are pictures or forms with files, of which each takes a millisecond to decode."""
_FETCHED: Final = 200
_HASHES: Final = 2**64
_WITH_BODIES: Final = "bodies IN ('kept', 'failed', 'streamed', 'too_large')"
"""Which rows may have an input or an answer; this column is read in a moment, and bodies are not."""


@dataclass(frozen=True, slots=True)
class Window:
    """What was found.

    Attributes:
        rows: The rows of the sample, by field.
        predictions: Predictions of the version that were kept.
        with_bodies: How many of them have bodies.
        read: How many were looked at.
        unreadable: In how many of these an input or an answer could not be read.
        left_out: Files that could not be read, and why.
    """

    rows: Rows
    predictions: int
    with_bodies: int
    read: int
    unreadable: int
    left_out: tuple[LeftOut, ...] = ()


def window_of(
    store: ObjectStore,
    model: str,
    version: str,
    since: datetime,
    until: datetime,
    *,
    fields: Sequence[str] = (),
    sample_rows: int = SAMPLE_ROWS,
    copies: Path | None = None,
) -> Window:
    """Return what predictions of a version were given and answered.

    Args:
        store: Where observations are.
        model: The model.
        version: Its version.
        since: Where the window begins.
        until: Where it ends; not part of it.
        fields: JMESPath expressions below `input` and `output`; none means all fields.
        sample_rows: About how many rows are looked at, where there are more.
        copies: Where copies of files in S3 are kept.

    Raises:
        RegistryUnavailable: The store cannot be read.
    """
    with Observed(store, model=model, since=since, until=until, copies=copies) as observed:
        found = observed.read(lambda connection: _window(connection, version, fields, sample_rows))
        return replace(found, left_out=observed.left_out)


def _window(connection: duckdb.DuckDBPyConnection, version: str, fields: Sequence[str], sample_rows: int) -> Window:
    counted = connection.execute(
        f"SELECT count(*), count(*) FILTER ({_WITH_BODIES}), count(*) FILTER ({_WITH_BODIES} "
        "AND (input_type LIKE 'image/%' OR input_type LIKE 'multipart/%')) FROM observations "
        f"WHERE version = ? AND {CALLERS}",
        [version],
    ).fetchone()
    assert counted is not None
    predictions, with_bodies, pictures = counted
    if pictures * 2 > with_bodies:
        sample_rows = min(sample_rows, PICTURES_SAMPLE_ROWS)
    # By the hash of its id a prediction is in the sample or not, whenever it is looked at and whichever file it is in.
    below = _HASHES - 1 if with_bodies <= sample_rows else _HASHES * sample_rows // with_bodies
    found = connection.execute(
        "SELECT input_type, input, CASE WHEN outcome = 'ok' THEN output_type END, CASE WHEN outcome = 'ok' THEN output "
        f"END FROM observations WHERE version = ? AND {CALLERS} AND {_WITH_BODIES} "
        "AND hash(prediction_id) <= ?::UBIGINT",
        [version, below],
    )
    rows = Rows(fields)
    read = unreadable = 0
    while batch := found.fetchmany(_FETCHED):
        for row in batch:
            document, whole = _document(*row)
            if whole and not document:
                continue  # both were too large
            rows.add(document)
            read += 1
            unreadable += not whole
    return Window(rows, predictions, with_bodies, read, unreadable)


def _document(
    input_type: str | None, given: bytes | None, output_type: str | None, answered: bytes | None
) -> tuple[dict[str, Sequence[Any]], bool]:
    """Return what a row has of `input` and `output`, and whether all that it has could be read."""
    document: dict[str, Sequence[Any]] = {}
    whole = True
    for root, body, content_type in (("input", given, input_type), ("output", answered, output_type)):
        if body is None:
            continue
        parts = parts_of(body, content_type)
        if parts is None:
            whole = False
        else:
            document[root] = parts
    return document, whole
