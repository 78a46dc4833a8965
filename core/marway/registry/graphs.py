"""Graphs as they are published: what they name has to be there, and a version that one pins is not deleted.

For each version that a graph names by its version there is an object, `pins/...`, written before the graph's record is:
one that stands for no graph, as its publish was given up or it was deleted, counts for nothing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from marway.errors import InvalidArchive, InvalidGraph, MarwayError, NotFound
from marway.graphs import GRAPH_BACKEND, Graph, check_graph, read_graph, references
from marway.graphs.reading import GRAPH_ARCHIVE_BYTES_MAX
from marway.graphs.settings import check_settings
from marway.objects import ObjectExists
from marway.records import VersionRecord
from marway.registry import keys
from marway.registry.encoding import encode
from marway.registry.reading import Reading
from marway.stored import Frozen

__all__ = ["Pin", "check_publishable", "graph_in", "pin_all", "pinned_by", "stands"]


class Pin(Frozen):
    """That a node of a graph names a version: `pins/<model>/<version>/<graph>/<graph's version>.json`."""

    graph: str
    version: str
    node: str


def graph_in(record: VersionRecord, archive: Path) -> Graph | None:
    """Return the graph that is to be published, None where the version is none.

    Raises:
        InvalidGraph: The archive holds none, or is too large.
    """
    if record.backend != GRAPH_BACKEND:
        return None
    which = f"{record.name} {record.version}"
    if record.archive.size_bytes > GRAPH_ARCHIVE_BYTES_MAX:
        raise InvalidGraph(
            f"{which} has {record.archive.size_bytes} bytes; {GRAPH_ARCHIVE_BYTES_MAX} are most of a graph: give it "
            "fewer or smaller golden examples",
            model=record.name,
        )
    try:
        return read_graph(archive)
    except InvalidArchive as exc:
        raise InvalidGraph(f"{which} is no graph: {exc.message}", model=record.name) from exc


def check_publishable(registry: Reading, record: VersionRecord, graph: Graph | None) -> None:
    """Check what gateways are to run or read themselves, before it is published.

    Raises:
        InvalidGraph: It cannot be run with what is published; the message has all that is wrong, with the nodes' names.
        InvalidInput: It has serving settings that have no effect.
    """
    check_settings(record, record.serving)
    problems = [] if graph is None else check_graph(graph, registry, model=record.name)
    if problems:
        raise InvalidGraph(
            f"{record.name} {record.version} cannot be published: {'; '.join(problems)}", model=record.name
        )


def pin_all(registry: Reading, record: VersionRecord, graph: Graph) -> None:
    """Write that a graph names versions, before its record is there."""
    for each in references(graph):
        if each.is_pinned:
            key = keys.pin_key(each.model, each.selector, record.name, record.version)
            with contextlib.suppress(ObjectExists):
                registry.store.create(
                    key, encode(Pin(graph=record.name, version=record.version, node=each.node), key=key)
                )


def pinned_by(registry: Reading, model: str, version: str) -> Iterator[tuple[str, str]]:
    """Yield the name and the version of each published graph that names a version."""
    prefix = keys.pins_prefix(model, version)
    for key in registry.store.keys(prefix):
        name, _, rest = key.removeprefix(prefix).partition("/")
        if stands(registry, name, rest.removesuffix(".json")):
            yield name, rest.removesuffix(".json")


def stands(registry: Reading, graph: str, version: str) -> bool:
    """Return whether a version is there, and not deleted; what cannot be read counts as there."""
    try:
        if version in registry.state(graph).tombstones:
            return False
        registry.record(graph, version)
    except NotFound:
        return False
    except MarwayError:
        return True
    return True
