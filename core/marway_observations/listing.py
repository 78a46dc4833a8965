"""Observations with what feedback says of them, as rows to show and as files to take along."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from marway.errors import InvalidInput, clip
from marway_observations import schema
from marway_observations.joining import COUNTED
from marway_observations.quality.judging import count
from marway_observations.reading import Observed
from marway_observations.reading.files import batches

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["FORMATS", "Wanted", "export", "newest"]

_FEEDBACK: Final = ("truth", "truth_at", "correct", "correct_at", "score", "score_at")
_BODIES: Final = ("input", "output")
_BINARY: Final = "base64:"
"""What the text of a body begins with that is no text, or that begins so itself."""

FORMATS: Final = (".csv", ".jsonl", ".parquet")
"""How a file is written, by its suffix."""
_COLUMNS: Final = pa.schema(
    [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in schema.OBSERVATIONS
    ]
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which observations are meant, beside the model and the time: all that is given must hold.

    Attributes:
        id: A prediction's or a request's.
        group: Of a group.
        version: Of a version.
        label: That a label led to their version.
        outcome: That ended so, such as `ok`.
        failed: That ended in any other way than `ok`.
    """

    id: str | None = None
    group: str | None = None
    version: str | None = None
    label: str | None = None
    outcome: str | None = None
    failed: bool = False

    def where(self) -> tuple[str, dict[str, object]]:
        """Return the condition in SQL and its parameters."""
        given = {
            "id": ("(prediction_id = $id OR request_id = $id)", self.id),
            "group": ("group_id = $group", self.group),
            "version": ("version = $version", self.version),
            "label": ("label = $label", self.label),
            "outcome": ("outcome = $outcome", self.outcome),
        }
        conditions = {name: each for name, each in given.items() if each[1] is not None}
        wanted = [each[0] for each in conditions.values()] + ["outcome <> 'ok'"] * self.failed
        return " AND ".join(wanted) or "true", {name: each[1] for name, each in conditions.items()}


def newest(observed: Observed, wanted: Wanted, limit: int, *, body_chars: int | None = None) -> list[dict[str, Any]]:
    """Return the newest observations with all columns and what feedback says, bodies as text, newest first.

    With ``body_chars`` bodies are cut to so many characters.
    """
    return observed.read(lambda connection: _newest(connection, wanted, limit, body_chars))


def export(observed: Observed, wanted: Wanted, file: Path, *, limit: int | None = None) -> int:
    """Write observations and what feedback says of them into a file, in no order, and return how many.

    Parquet has bodies as they are; JSON lines and CSV as text, or in base64 where they are none.

    Args:
        observed: What was kept.
        wanted: Which of them.
        file: A new file, whose suffix says how it is written. It is there whole, or not at all.
        limit: Only the newest so many.

    Raises:
        InvalidInput: The file is there, or its suffix is of no known kind.
    """
    if file.suffix not in FORMATS:
        raise InvalidInput(f"{clip(str(file), 200)} is to be written how? End its name with {', '.join(FORMATS)}")
    if file.exists():
        raise InvalidInput(f"{clip(str(file), 200)} is there already: remove it, or name another file")
    if not file.parent.is_dir():
        raise InvalidInput(f"there is no directory {clip(str(file.parent), 200)} to write {clip(file.name, 100)} into")
    unfinished = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        rows = observed.read(lambda connection: _write(connection, observed, wanted, unfinished, file.suffix, limit))
        unfinished.rename(file)
    finally:
        unfinished.unlink(missing_ok=True)
    return rows


def _newest(
    connection: duckdb.DuckDBPyConnection, wanted: Wanted, limit: int, body_chars: int | None
) -> list[dict[str, Any]]:
    _pick(connection, wanted, limit)
    columns = [*schema.OBSERVATIONS.names, "model", *_FEEDBACK]
    found = connection.execute(
        f'SELECT {_shown(columns, chars=body_chars)} FROM picked ORDER BY "at" DESC, prediction_id DESC'
    )
    return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


def _write(
    connection: duckdb.DuckDBPyConnection,
    observed: Observed,
    wanted: Wanted,
    file: Path,
    suffix: str,
    limit: int | None,
) -> int:
    names = [*schema.OBSERVATIONS.names, "model", *_FEEDBACK]
    shown = ", ".join(f'"{name}"' for name in names) if suffix == ".parquet" else _shown(names, times=True)
    if limit is not None:
        _pick(connection, wanted, limit)
        with _Target(connection, file, suffix) as target:
            return target.append(f"SELECT {shown} FROM picked", {})
    count(connection)
    condition, parameters = wanted.where()
    query = f"""SELECT {shown} FROM (
        SELECT b.*, c.* EXCLUDE (prediction_id) FROM batch b LEFT JOIN counted c ON c.prediction_id = b.prediction_id
    ) WHERE {condition} AND {observed.within}"""
    # Some rows at a time, and not in one query: between its steps DuckDB gathers up to 2048 rows, however large.
    with _Target(connection, file, suffix) as target:
        rows = 0
        for source in observed.predictions:
            for batch in batches(source, _COLUMNS):
                model = pa.array([source.model] * len(batch), pa.string())
                connection.register("batch", batch.append_column("model", model))
                rows += target.append(query, parameters)
        if not rows:
            connection.register("batch", _COLUMNS.append(pa.field("model", pa.string())).empty_table())
            target.append(query, parameters)  # a file with no rows has columns all the same
        return rows


class _Target:
    """A file to which the rows of one query after the other are appended."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, file: Path, suffix: str) -> None:
        self._connection = connection
        self._file = file
        self._suffix = suffix
        self._part = file.with_name(f"{file.name}.part")
        self._parquet: pq.ParquetWriter | None = None
        self._begun = False
        file.unlink(missing_ok=True)

    def append(self, query: str, parameters: dict[str, object]) -> int:
        if self._suffix == ".parquet":
            table: Any = self._connection.sql(query, params=parameters).to_arrow_table()
            if self._parquet is None:
                self._parquet = pq.ParquetWriter(self._file, table.schema, compression="zstd")
            self._parquet.write_table(table)
            return len(table)
        how = "FORMAT json" if self._suffix == ".jsonl" else f"FORMAT csv, HEADER {not self._begun}"
        path = "'" + str(self._part).replace("'", "''") + "'"
        copied = self._connection.execute(f"COPY ({query}) TO {path} ({how})", parameters).fetchall()
        with self._part.open("rb") as part, self._file.open("ab") as whole:
            shutil.copyfileobj(part, whole)
        self._begun = True
        return int(copied[0][0])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._parquet is not None:
            self._parquet.close()
        self._part.unlink(missing_ok=True)


def _pick(connection: duckdb.DuckDBPyConnection, wanted: Wanted, limit: int) -> None:
    """Make the table `picked` of the newest rows and what feedback says of them."""
    condition, parameters = wanted.where()
    # First which they are, by narrow columns: bodies of others are not read, nor feedback for others grouped.
    connection.execute(
        'CREATE OR REPLACE TEMP TABLE ids AS SELECT prediction_id, "at" FROM observations '
        f'WHERE {condition} ORDER BY "at" DESC, prediction_id DESC LIMIT {limit}',
        parameters,
    )
    oldest, newest_ = connection.execute('SELECT min("at"), max("at") FROM ids').fetchall()[0]
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE picked AS
        WITH picks AS (
            SELECT o.* FROM observations o SEMI JOIN ids ON ids.prediction_id = o.prediction_id AND ids."at" = o."at"
            WHERE o."at" BETWEEN $oldest AND $newest
        ), counted AS (
            WITH observations AS (SELECT * FROM picks),
                feedback AS (
                    SELECT * FROM feedback
                    WHERE prediction_id IS NULL OR prediction_id IN (SELECT prediction_id FROM ids)
                )
            {COUNTED}
        )
        SELECT o.*, c.* EXCLUDE (prediction_id) FROM picks o LEFT JOIN counted c ON c.prediction_id = o.prediction_id
        """,
        {"oldest": oldest, "newest": newest_},
    )


def _shown(columns: list[str], *, times: bool = False, chars: int | None = None) -> str:
    """Return SQL of columns in which bodies are text, of at most ``chars``; with ``times`` moments are in ISO 8601."""

    def sql(name: str) -> str:
        if name in _BODIES:
            text = f"try(decode({name}))"
            binary = f"'{_BINARY}' || base64({name})"
            plain = f"coalesce({text}, {binary})"
            whole = f"CASE WHEN starts_with({text}, '{_BINARY}') THEN {binary} ELSE {plain} END"
            return f"{whole if chars is None else f'left({whole}, {chars})'} AS {name}"
        if times and (name == "at" or name.endswith("_at")):
            return f"""strftime("{name}", '%Y-%m-%dT%H:%M:%S.%fZ') AS "{name}\""""
        return f'"{name}"'

    return ", ".join(map(sql, columns))
