"""Which kept inputs are sent once more: the newest of a label's or a version's callers, in the order they came."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import duckdb

from marway.errors import NotFound
from marway.objects import ObjectStore
from marway_observations.reading import LeftOut, Observed
from marway_observations.schema import CALLERS

__all__ = ["Inputs", "Wanted", "choose"]

_FETCHED: Final = 100
"""Inputs that are in memory at once, beside those that are on their way."""
_WITH_INPUT: Final = "bodies IN ('kept', 'failed')"
_COLUMNS: Final = ("prediction_id", '"at"', "surface", "input_type", "input", "output", "outcome")
_WHY_NONE: Final = {
    "off": "with `observe` at bodies they are kept: marway serving MODEL --set observe=bodies",
    "too_large": "they were too large to be kept",
    "streamed": "their answers came in pieces, and such are not kept",
    "not_redactable": "they could not be read, and so not be redacted",
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose inputs are meant.

    Attributes:
        model: The model.
        since, until: When the predictions ended.
        last: At most so many, the newest; None means all.
        label: Only those of callers of a label.
        version: Only those that this version answered.
    """

    model: str
    since: datetime
    until: datetime
    last: int | None = None
    label: str | None = None
    version: str | None = None


@dataclass(frozen=True, slots=True)
class Inputs:
    """What was found. It can be gone through once, while `choose` is open.

    Attributes:
        count: How many.
        since, until: When the first of their predictions ended, and the last.
        left_out: Files that could not be read.
    """

    count: int
    since: datetime
    until: datetime
    left_out: tuple[LeftOut, ...]
    _connection: duckdb.DuckDBPyConnection
    _model: str

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield columns of observations, the oldest first. Blocks now and then."""
        names = [name.strip('"') for name in _COLUMNS]
        for first in range(0, self.count, _FETCHED):
            found = self._connection.execute(
                f"SELECT {', '.join(_COLUMNS)} FROM chosen WHERE place > $first AND place <= $last ORDER BY place",
                {"first": first, "last": first + _FETCHED},
            )
            for row in found.fetchall():
                yield dict(zip(names, row, strict=True)) | {"model": self._model}


@contextmanager
def choose(store: ObjectStore, wanted: Wanted) -> Iterator[Inputs]:
    """Find the inputs, and keep them at hand in memory and on disk as long as the context is open. Blocks.

    Raises:
        NotFound: There are none; the message says what there is instead.
        RegistryUnavailable: The store cannot be read.
        InvalidInput: There is too little memory or disk.
    """
    with Observed(store, model=wanted.model, since=wanted.since, until=wanted.until) as observed:
        chosen = observed.read(lambda connection: _choose(connection, wanted))
        if chosen is None:
            raise NotFound(observed.read(lambda connection: _none(connection, wanted)), model=wanted.model)
        yield Inputs(*chosen, observed.left_out, observed.connection, wanted.model)


def _condition(wanted: Wanted) -> tuple[str, dict[str, object]]:
    given = {"label": wanted.label, "version": wanted.version}
    found = {name: value for name, value in given.items() if value is not None}
    return " AND ".join((CALLERS, *(f"{name} = ${name}" for name in found))), dict(found)


def _choose(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> tuple[int, datetime, datetime] | None:
    """Make the table `chosen`, and return how many rows it has, and their times."""
    condition, parameters = _condition(wanted)
    limit = "" if wanted.last is None else f"LIMIT {wanted.last}"
    # First which they are, by narrow columns: bodies of others are not read.
    connection.execute(
        'CREATE OR REPLACE TEMP TABLE ids AS SELECT prediction_id, "at" FROM observations '
        f'WHERE {condition} AND {_WITH_INPUT} ORDER BY "at" DESC, prediction_id DESC {limit}',
        parameters,
    )
    since, until = connection.execute('SELECT min("at"), max("at") FROM ids').fetchall()[0]
    if since is None:
        return None
    columns = ", ".join(f"o.{name}" for name in _COLUMNS)
    connection.execute(
        f"""CREATE OR REPLACE TEMP TABLE chosen AS
        SELECT {columns}, row_number() OVER (ORDER BY o."at", o.prediction_id) AS place
        FROM observations o SEMI JOIN ids ON ids.prediction_id = o.prediction_id AND ids."at" = o."at"
        WHERE o."at" BETWEEN $since AND $until AND o.input IS NOT NULL""",
        {"since": since, "until": until},
    )
    count, since, until = connection.execute('SELECT count(*), min("at"), max("at") FROM chosen').fetchall()[0]
    return (count, since, until) if count else None


def _none(connection: duckdb.DuckDBPyConnection, wanted: Wanted) -> str:
    """Return why there is nothing to send."""
    condition, parameters = _condition(wanted)
    found = connection.execute(
        f"SELECT bodies, count(*) FROM observations WHERE {condition} GROUP BY ALL ORDER BY 2 DESC, 1", parameters
    ).fetchall()
    whose = f"callers of {wanted.label}" if wanted.label is not None else f"{wanted.version}"
    span = f"between {wanted.since:%Y-%m-%d %H:%M} and {wanted.until:%Y-%m-%d %H:%M} UTC"
    asked = f"no input of {whose} was kept {span}"
    if not found:
        return (
            f"{asked}, nor anything else of their predictions: a gateway writes what it keeps some seconds later; "
            "for older ones give --since"
        )
    kinds = "; ".join(
        f"of {count} predictions ({bodies}) {_WHY_NONE.get(bodies, '')}".rstrip() for bodies, count in found
    )
    return f"{asked}: {kinds.replace('MODEL', wanted.model)}"
