"""One prediction among all that were kept, by its id or its request's, and the feedback that applies to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from marway.errors import NotFound, clip
from marway.objects import ObjectStore
from marway_observations.joining import APPLIED, COUNTED
from marway_observations.layout import made_at
from marway_observations.reading import LeftOut, Observed

__all__ = ["Found", "find"]

_CLOCKS: Final = timedelta(minutes=5)
"""By so much may the clock of whoever made an id go before that of the gateway that wrote the row."""
_LASTS: Final = timedelta(hours=2)
"""So long after its id was made a prediction has ended: a gateway lets none wait longer than an hour."""
_MOMENT: Final = timedelta(microseconds=1)
_OTHERS_MAX: Final = 100
_WANTED: Final = "SELECT * FROM observations WHERE prediction_id = $id OR request_id = $id "
_PARTS: Final = ("truth", "correct", "score")


@dataclass(frozen=True, slots=True)
class Found:
    """What was kept of a prediction.

    Attributes:
        row: The columns of the observation, and `model`.
        others: Ids of other predictions of the same request, newest first.
        counts: What the feedback comes to: `truth` (as JSON), `correct`, `score`, each with its moment (`truth_at`);
            empty where there is none.
        feedback: Every piece that applies to it, the newest first, with what it says and who said it.
        left_out: Files that could not be read: it may be that they would have said more.
    """

    row: dict[str, Any]
    others: tuple[str, ...]
    counts: dict[str, Any]
    feedback: tuple[dict[str, Any], ...]
    left_out: tuple[LeftOut, ...]


def find(store: ObjectStore, wanted: str, *, since: datetime, until: datetime, model: str | None = None) -> Found:
    """Return the prediction with an id, or the newest one of the request with that id.

    An id that Marway made says when that was, and is looked for there first; any other between ``since`` and ``until``.
    Without a ``model`` those of all are looked through.

    Raises:
        NotFound: Nothing was kept of it, or not in that time.
        RegistryUnavailable: The store cannot be read.
    """
    left_out: tuple[LeftOut, ...] = ()
    for first, last in _windows(wanted, since, until):
        with Observed(store, model=model, since=first, until=last) as observed:
            rows = _rows(observed, _WANTED + f'ORDER BY "at" DESC LIMIT {_OTHERS_MAX}', {"id": wanted})
            left_out = observed.left_out
        if rows:
            row = rows[0]
            counts, given = _feedback(store, row)
            others = tuple(each["prediction_id"] for each in rows[1:])
            return Found(row, others, counts, given, left_out)
    unread = f"; {len(left_out)} files could not be read, such as {left_out[0].key}" if left_out else ""
    raise NotFound(
        f"nothing was kept of {clip(wanted, 100)!r} between {since:%Y-%m-%d %H:%M} and {until:%Y-%m-%d %H:%M} UTC"
        f"{unread}: a gateway writes what it keeps some seconds later, keeps none of a model whose serving setting "
        "`observe` is off, and only a part where `observe_rate` is below 1; for an older one give --since"
    )


def _windows(wanted: str, since: datetime, until: datetime) -> Iterator[tuple[datetime, datetime]]:
    try:
        made = made_at(wanted)
    except ValueError:
        pass
    else:
        yield made - _CLOCKS, made + _LASTS
    yield since, until


def _feedback(store: ObjectStore, row: dict[str, Any]) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """Return what counts of the feedback for a prediction, and every piece of it."""
    id_ = {"id": row["prediction_id"]}
    # No other prediction is in sight, so the feedback of a whole group is not multiplied by all of them.
    with Observed(store, model=row["model"], since=row["at"], until=row["at"] + _MOMENT) as observed:
        counted = _rows(observed, f"SELECT * FROM ({COUNTED}) WHERE prediction_id = $id", id_)
        pieces = _rows(
            observed,
            f'SELECT DISTINCT ON (feedback_id) * FROM ({APPLIED}) WHERE prediction_id = $id ORDER BY feedback_id, "at"',
            id_,
        )
    pieces.sort(key=lambda each: (each["at"], each["feedback_id"]), reverse=True)
    counts = counted[0] if counted else {}
    counts.pop("prediction_id", None)
    kept = ("feedback_id", "at", "received_at", *_PARTS, "source", "client")
    return counts, tuple({name: each[name] for name in kept} for each in pieces)


def _rows(observed: Observed, sql: str, parameters: dict[str, object]) -> list[dict[str, Any]]:
    def run(connection: Any) -> list[dict[str, Any]]:
        found = connection.execute(sql, parameters)
        names = [each[0] for each in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    return observed.read(run)
