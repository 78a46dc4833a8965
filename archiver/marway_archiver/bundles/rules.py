"""How each kind of model server wants its directory; one set of rules for packing and for checking."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from marway.archives.entries import Entry, read_all, shown
from marway.errors import InvalidArchive, InvalidGraph
from marway.graphs import (
    GRAPH_BACKEND,
    GRAPH_FILE,
    TABLE_BACKEND,
    TENSOR_FRAMEWORK,
    check_graph,
    parse_graph,
)
from marway.graphs.document import DOCUMENT_BYTES_MAX
from marway.graphs.tables import COLUMNS_BYTES_MAX, COLUMNS_FILE, TABLE_FILE, parse_columns
from marway_archiver.bundles.layout import Layout, folders
from marway_archiver.bundles.open_inference import check_open_inference

__all__ = ["check_layout", "saved_model_folder"]

_SAVED_MODELS: Final = ("saved_model.pb", "saved_model.pbtxt")


def check_layout(backend: str, files: Mapping[str, Entry]) -> Layout:
    """Check a model's directory, its files by their names in it; of a server that Marway does not know, any is taken.

    None at all are right for each that runs elsewhere: the server has the model.

    Raises:
        InvalidArchive: The servers of ``backend`` could not load it; one sentence says what they want.
    """
    rule = _RULES.get(backend)
    if not files and backend not in _NEEDED:
        return Layout()
    return Layout() if rule is None else rule(files)


def _tensorflow(files: Mapping[str, Entry]) -> Layout:
    if files.keys().isdisjoint(_SAVED_MODELS):
        raise InvalidArchive(
            "it is no SavedModel: TensorFlow Serving wants saved_model.pb in it, or in its one version directory"
        )
    return Layout(framework="tensorflow")


def saved_model_folder(names: Mapping[str, Entry]) -> str | None:
    """Return the one version directory (its name is a number) of an export whose SavedModel is in there, or None.

    Raises:
        InvalidArchive: There are several: a bundle has one version.
    """
    if not names.keys().isdisjoint(_SAVED_MODELS):
        return None
    numbered = [each for each in folders(names) if each.isdigit()]
    found = [each for each in numbered if any(f"{each}/{file}" in names for file in _SAVED_MODELS)]
    if len(found) > 1:
        raise InvalidArchive(f"it holds the versions {', '.join(found)}: give the directory of one of them")
    return found[0] if found else None


def _graph(files: Mapping[str, Entry]) -> Layout:
    document = files.get(GRAPH_FILE)
    if document is None:
        raise InvalidArchive(f"it is no graph: there is no {GRAPH_FILE}; `marway graph publish` packs one")
    if other := next((name for name in files if name != GRAPH_FILE), None):
        raise InvalidArchive(f"{shown(other)}: a graph is its {GRAPH_FILE} alone")
    try:
        graph = parse_graph(read_all(document, DOCUMENT_BYTES_MAX))
        problems = check_graph(graph)
    except InvalidGraph as exc:
        raise InvalidArchive(exc.message) from exc
    if problems:
        raise InvalidArchive("; ".join(problems))
    return Layout(framework=TENSOR_FRAMEWORK if graph.protocol == "open-inference" else None)


def _table(files: Mapping[str, Entry]) -> Layout:
    if files.keys() != {COLUMNS_FILE, TABLE_FILE}:
        raise InvalidArchive(
            f"it is no table, which is {COLUMNS_FILE} and {TABLE_FILE}: `marway table publish` makes one"
        )
    return Layout(signature=parse_columns(read_all(files[COLUMNS_FILE], COLUMNS_BYTES_MAX)).signature)


_NEEDED: Final = (GRAPH_BACKEND, TABLE_BACKEND)
"""Backends whose versions are their files: no server has them from elsewhere."""
_RULES: Final[Mapping[str, Callable[[Mapping[str, Entry]], Layout]]] = {
    GRAPH_BACKEND: _graph,
    "open-inference": check_open_inference,
    TABLE_BACKEND: _table,
    "tensorflow-serving": _tensorflow,
}
