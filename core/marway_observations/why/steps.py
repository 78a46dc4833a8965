"""What a graph asked for one of its answers: the predictions of its nodes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from marway.errors import ArchiveCorrupt, InvalidGraph, NotFound
from marway.graphs import GRAPH_BACKEND, references
from marway.objects import ObjectStore
from marway.registry import Registry
from marway_observations.reading import Observed

__all__ = ["steps_of"]

_CLOCKS: Final = timedelta(seconds=10)
"""By so much a step may seem to have ended before its graph began, or after it ended: its row is made apart from it."""
_COLUMNS: Final = (
    *("node", "prediction_id", "version", "label", "role", "pod", "cache", "attempts", "status", "outcome", "error"),
    *("at", "duration_s", "model_s"),
)
_ASKED: Final = f"""
SELECT model, {", ".join(f'"{name}"' for name in _COLUMNS)} FROM observations WHERE graph = $id ORDER BY "at"
"""


def steps_of(store: ObjectStore, row: dict[str, Any], registry: Registry) -> list[dict[str, Any]] | None:
    """Return what was kept of the predictions that a graph made for one of its own, in the order in which they ended.

    None where the prediction is no graph's. Those of a graph within it are that graph's. Blocks.

    Args:
        store: Where predictions are kept.
        row: The graph's own prediction, as `find` gives it.
        registry: Says which models its nodes ask.

    Raises:
        RegistryUnavailable: Store or registry cannot be read.
    """
    try:
        record = registry.record(row["model"], row["version"])
        if record.backend != GRAPH_BACKEND:
            return None
        models = {each.model for each in references(registry.graph(record)) if each.role != "table"}
    except (NotFound, ArchiveCorrupt, InvalidGraph):
        return None
    first = row["at"] - timedelta(seconds=row["duration_s"]) - _CLOCKS
    found: list[dict[str, Any]] = []
    for model in sorted(models):
        with Observed(store, model=model, since=first, until=row["at"] + _CLOCKS) as observed:
            found += observed.read(lambda connection: _read(connection, row["prediction_id"]))
    return sorted(found, key=lambda each: each["at"])


def _read(connection: Any, graph: str) -> list[dict[str, Any]]:
    asked = connection.execute(_ASKED, {"id": graph})
    names = [each[0] for each in asked.description]
    return [dict(zip(names, row, strict=True)) for row in asked.fetchall()]
