"""The tables `observations` and `feedback` in DuckDB, of one model or all and of a time."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from marway.errors import InvalidInput, RegistryUnavailable, clip
from marway.objects import ObjectStore
from marway_observations import schema
from marway_observations.reading import limits
from marway_observations.reading.files import LeftOut, LocalFile, LocalFiles, damage, hour_before
from marway_observations.reading.limits import LIMITS

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Observed", "literal"]

T = TypeVar("T")

_TRIES: Final = 6
_THREADS: Final = 4
"""Each holds a row group of the columns that are read: more would not find room."""
_TYPES: Final = {
    "binary": "BLOB",
    "bool": "BOOLEAN",
    "double": "DOUBLE",
    "float": "FLOAT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "string": "VARCHAR",
    "timestamp[us, tz=UTC]": "TIMESTAMPTZ",
}
_OUR_OWN: Final = (duckdb.ParserException, duckdb.CatalogException, duckdb.BinderException)


class Observed:
    """What was kept, as views of a DuckDB connection: `observations` (all columns and `model`) and `feedback`.

    It is a context manager. `marway gc` may merge or delete files while they are read: `read` and `query` then look
    again and begin anew, so what they run may run twice. What cannot be read is left out and named in `left_out`.
    In DuckDB's SQL the column "at" must be quoted, unless a table is named: `o.at`.

    Args:
        store: Where both are: `marway_observations.store.open_observations` opens it.
        model: Only its observations; None means those of all models. Feedback knows no model.
        since: Only predictions that ended at this moment or later.
        until: Only predictions that ended before this moment. Feedback may have come at any time.
        feedback_since: Only feedback that came at this moment or later; None means since an hour before ``since``.
        feedback_until: Only feedback that came before this moment: what was known then.
        copies: Where files copied from S3 stay for the next reader; None removes them at the end.
        memory_mb: What DuckDB may take of memory, in MiB, where as much is left; what needs more goes to a temporary
            directory. Only where rows are so large that this does not do, it goes on with one thread, and then with
            more. None means the process's limit (`marway_observations.reading.limits`).

    Raises:
        RegistryUnavailable: The store cannot be read.
        InvalidInput: There is too little memory, or too much to copy.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        model: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        feedback_since: datetime | None = None,
        feedback_until: datetime | None = None,
        copies: Path | None = None,
        memory_mb: int | None = None,
    ) -> None:
        self._model = model
        self._since, self._until = since, until
        self._feedback_since, self._feedback_until = feedback_since or hour_before(since), feedback_until
        self._files = LocalFiles(store, copies=copies)
        self._broken: dict[str, LeftOut] = {}
        self._read: list[LocalFile] = []
        self._predictions: list[LocalFile] = []
        self._half: list[LeftOut] = []
        wanted_mb = memory_mb or LIMITS.memory_mb
        self._rooms = iter(((1, wanted_mb), (1, max(wanted_mb, LIMITS.memory_most_mb))))
        self._temporary = Path(tempfile.mkdtemp(prefix="marway-duckdb-"))
        try:
            self.connection = _connect(self._temporary, limits.memory_mb(wanted_mb))
            self._find()
        except BaseException:
            self.close()
            raise

    @property
    def left_out(self) -> tuple[LeftOut, ...]:
        """The files that could not be read."""
        return tuple(sorted((*self._half, *self._broken.values()), key=lambda each: each.key))

    @property
    def files(self) -> int:
        """How many files are read."""
        return len(self._read)

    @property
    def predictions(self) -> tuple[LocalFile, ...]:
        """The files of the table `observations`, which have rows of other times as well."""
        return tuple(self._predictions)

    @property
    def within(self) -> str:
        """The condition in SQL for rows of `predictions` that are of the time."""
        return _within('"at"', self._since, self._until)

    def query(self, sql: str, parameters: Sequence[object] | dict[str, object] | None = None) -> list[tuple[Any, ...]]:
        """Return all rows of a query."""
        return self.read(lambda connection: connection.execute(sql, parameters).fetchall())

    def read(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Return what ``work`` makes of the connection; it is run again where a file was found gone or broken.

        Raises:
            InvalidInput: It needs more memory or disk than it may have.
            RegistryUnavailable: Files cannot be read, or go faster than they can be.
        """
        for _ in range(_TRIES):
            done = self._attempt(work)
            if done is not None:
                return done[0]
        raise RegistryUnavailable("files of observations go faster than they can be read: try again")

    def close(self) -> None:
        """Close the connection and remove what was temporary."""
        if hasattr(self, "connection"):
            self.connection.close()
        self._files.close()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, work: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[T] | None:
        try:
            return (work(self.connection),)
        except duckdb.OutOfMemoryException as exc:
            room = next(self._rooms, None)
            if room is None:
                raise InvalidInput(
                    f"this is too much at once: ask for a shorter time ({clip(_line(exc), 200)})"
                ) from exc
            threads, wanted_mb = room
            _take(self.connection, threads, limits.memory_mb(wanted_mb))
            return None
        except _OUR_OWN:
            raise
        except (duckdb.Error, pa.ArrowException, FileNotFoundError) as exc:
            if not self._look_again():
                raise RegistryUnavailable(f"observations cannot be read: {clip(_line(exc), 300)}") from exc
            return None

    def _find(self) -> None:
        keys = self._files.observations(self._model, self._since, self._until)
        observed, half = self._files.local([key for key in keys if key not in self._broken])
        keys = self._files.feedback(self._feedback_since, self._feedback_until)
        feedback, half_too = self._files.local([key for key in keys if key not in self._broken])
        self._predictions = observed
        self._read, self._half = observed + feedback, half + half_too
        if self._model is None:
            model = "regexp_extract(filename, 'model=([^/]+)/date=[^/]+/hour=[^/]+/[^/]+$', 1) AS model"
        else:
            model = f"{literal(self._model)} AS model"
        self._view("observations", schema.OBSERVATIONS, observed, self.within, model)
        self._view(
            "feedback", schema.FEEDBACK, feedback, _within("received_at", self._feedback_since, self._feedback_until)
        )

    def _view(self, name: str, table: pa.Schema, files: list[LocalFile], where: str, *more: str) -> None:
        paths = ", ".join(literal(str(file.path)) for file in files) or literal(str(_empty(self._temporary, table)))
        columns = ", ".join((*(f'"{column}"' for column in table.names), *more))
        # With the columns told, no file is opened before it is read, and columns that a file lacks are null.
        self.connection.execute(
            f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT {columns} FROM read_parquet([{paths}], "
            f"schema=MAP {{{_columns(table)}}}, hive_partitioning=false, filename=true) WHERE {where}"
        )

    def _look_again(self) -> bool:
        """Find the files anew; return whether any are others now, or were found broken."""
        before = {file.key for file in self._read}
        found = {file.key: LeftOut(file.key, why) for file in self._read if (why := damage(file.path)) is not None}
        self._broken.update(found)
        self._find()
        return bool(found) or before != {file.key for file in self._read}


def _connect(temporary: Path, memory_mb: int) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,  # all that is used is built in: nothing is ever downloaded
            "autoload_known_extensions": False,
            "enable_external_file_cache": False,  # the kernel keeps pages of files; here they would count as ours
            "max_temp_directory_size": f"{LIMITS.disk_bytes // 1024**2}MiB",
            "preserve_insertion_order": False,
            "temp_directory": str(temporary / "spilled"),
        },
    )
    connection.execute("SET TimeZone = 'UTC'")
    _take(
        connection,
        min(_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _THREADS),
        memory_mb,
    )
    return connection


def _take(connection: duckdb.DuckDBPyConnection, threads: int, memory_mb: int) -> None:
    connection.execute(f"SET threads = {threads}")
    connection.execute(f"SET memory_limit = '{memory_mb}MiB'")


def _empty(temporary: Path, columns: pa.Schema) -> Path:
    """Return a file with no rows: DuckDB reads from one file at least."""
    path = temporary / "empty.parquet"
    pq.write_table(columns.empty_table(), path)
    return path


def _columns(table: pa.Schema) -> str:
    return ", ".join(
        f"'{field.name}': {{name: '{field.name}', type: '{_type(field.type)}', default_value: NULL}}" for field in table
    )


def _type(of: pa.DataType) -> str:
    return "VARCHAR" if pa.types.is_dictionary(of) else _TYPES[str(of)]


def _within(column: str, since: datetime | None, until: datetime | None) -> str:
    wanted = [
        f"{column} {sign} TIMESTAMPTZ {literal(at.astimezone(timezone.utc).isoformat())}"
        for sign, at in ((">=", since), ("<", until))
        if at is not None
    ]
    return " AND ".join(wanted) or "true"


def literal(text: str) -> str:
    """Return a text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"


def _line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
