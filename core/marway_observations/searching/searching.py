"""Finds predictions by what a person remembers of them, and tells all of one; all of it blocks."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from marway.errors import ModelNotFound
from marway.objects import ObjectStore
from marway.records import utc_now
from marway.refs import check_model_id
from marway.registry import Registry
from marway.serving import moment
from marway_observations.layout import observations_prefix
from marway_observations.listing import Wanted, newest
from marway_observations.moments import CLOCKS, since_of_id
from marway_observations.reading import Observed
from marway_observations.searching.questions import (
    Body,
    Explain,
    Explanation,
    PredictionRow,
    Search,
    SearchResult,
)
from marway_observations.why import explained, find, steps_of

__all__ = ["explain", "known_model", "search"]

_SINCE: Final = "24h"
_ANSWER_CHARS: Final = 200
_TEXT_BYTES_MAX: Final = 256 * 1024


def known_model(registry: Registry, store: ObjectStore, model: str) -> str:
    """Return a model's name as it is written; of one that is deleted, as it was.

    Raises:
        InvalidReference: No model can have that name.
        ModelNotFound: There is none, and nothing was kept of one.
        RegistryUnavailable: Registry or store cannot be read.
    """
    check_model_id(model)  # it becomes part of keys
    try:
        return registry.find(model)
    except ModelNotFound:
        if next(iter(store.children(observations_prefix(model))), None) is None:
            raise
        return model


def search(registry: Registry, store: ObjectStore, wanted: Search) -> SearchResult:
    """Return the newest predictions that are looked for.

    Raises:
        InvalidInput: A time is none, or it is too much to be read.
        ModelNotFound: There is no such model.
        RegistryUnavailable: Registry or store cannot be read.
    """
    now = utc_now()
    name = None if wanted.model is None else known_model(registry, store, wanted.model)
    if wanted.since is not None:
        since = moment(wanted.since, now)
    else:
        since = moment(_SINCE, now) if wanted.id is None else since_of_id(wanted.id, now)
    until = moment(wanted.until, now) if wanted.until is not None else now + CLOCKS
    fields = {name: getattr(wanted, name) for name in ("id", "group", "version", "label", "outcome", "failed")}
    with Observed(store, model=name, since=since, until=until) as observed:
        rows = newest(observed, Wanted(**fields), wanted.limit + 1, body_chars=_ANSWER_CHARS)
        left_out = tuple(f"{each.key}: {each.why}" for each in observed.left_out)
    return SearchResult(
        since=since,
        until=until,
        predictions=tuple(_row(each) for each in rows[: wanted.limit]),
        more=len(rows) > wanted.limit,
        left_out=left_out,
    )


def explain(registry: Registry, store: ObjectStore, wanted: Explain) -> Explanation:
    """Return all that is known of a prediction.

    Raises:
        InvalidInput: The time is none.
        NotFound: Nothing was kept of it.
        RegistryUnavailable: Registry or store cannot be read.
    """
    now = utc_now()
    model = None if wanted.model is None else known_model(registry, store, wanted.model)
    found = find(store, wanted.id, model=model, since=moment(wanted.since, now), until=now + timedelta(minutes=5))
    return Explanation(
        why=explained(found, registry, steps_of(store, found.row, registry)),
        input=_body(found.row, "input"),
        output=_body(found.row, "output"),
        left_out=tuple(f"{each.key}: {each.why}" for each in found.left_out),
    )


def _row(row: Mapping[str, Any]) -> PredictionRow:
    kept = {name: row[name] for name in PredictionRow.model_fields if not name.startswith("answer")}
    return PredictionRow(**kept, answer=row["output"], answer_type=row["output_type"])


def _body(row: Mapping[str, Any], which: str) -> Body | None:
    if row[which] is None:
        return None
    data = bytes(row[which])
    made = Body(content_type=row[f"{which}_type"], size_bytes=len(data))
    cut = data[:_TEXT_BYTES_MAX]
    try:
        text = cut.decode(errors="strict" if cut == data else "ignore")
        data.decode()
    except UnicodeDecodeError:
        return made.model_copy(update={"base64": base64.b64encode(data).decode()})
    return made.model_copy(update={"text": text, "cut": cut != data})
