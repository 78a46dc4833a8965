"""What the nodes of a graph ask, also through graphs in it: what is loaded ahead, and has to be there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Final, Protocol

from marway.answers.golden import GoldenAnswer
from marway.deadline import Deadline
from marway.errors import InvalidGraph, MarwayError
from marway.graphs import DEPTH_MAX, GRAPH_BACKEND, Graph, ParallelNode, references
from marway.records import VersionRecord
from marway.resolve.resolved import Resolved
from marway.resolve.resolver import Resolver
from marway.wire.comparison import Comparison
from marway.wire.pods import LoadReport

__all__ = ["GATEWAY", "GraphOf", "GraphVersions", "Part", "Parts", "of_node"]

GATEWAY: Final = "gateway"
"""What stands where a pod's name does, for what the gateway itself has run."""
GraphOf = Callable[[VersionRecord], Awaitable[Graph]]
"""Gives the document of a version that is a graph."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """A version that a graph asks, by itself or through graphs in it.

    Attributes:
        node: The node that asks it, `NODE/NODE` in a graph of a graph.
        resolved: Which it is now.
        needed: Whether the graph fails where it does.
    """

    node: str
    resolved: Resolved
    needed: bool


class GraphVersions(Protocol):
    """What does for graphs what pods do for models: `marway_gateway.graph.releasing.GraphReleases`."""

    async def parts(self, record: VersionRecord) -> tuple[Part, ...]:
        """Return the versions that a graph's nodes ask now."""

    async def report(self, version: Resolved, *, prove: bool, deadline: Deadline) -> LoadReport:
        """Return what is to be said of a graph whose parts are loaded."""

    async def compare(self, version: Resolved, base: Resolved | None, *, deadline: Deadline) -> Comparison:
        """Return how a version compares with another one, of which one is a graph."""

    async def answer(self, version: Resolved, data: bytes, content_type: str, *, deadline: Deadline) -> GoldenAnswer:
        """Return what a graph answers to a request."""


class Parts:
    """Follows the references of graphs.

    Args:
        graph_of: Gives the document of a graph.
        resolver: Knows which versions nodes ask now.
    """

    def __init__(self, graph_of: GraphOf, resolver: Resolver) -> None:
        self._graph_of = graph_of
        self._resolver = resolver

    async def of(self, record: VersionRecord) -> tuple[Part, ...]:
        """Return the versions that a graph's nodes ask now, those of graphs in it instead of these, each once.

        What is not needed and not there is left out.

        Raises:
            NotFound: A version that is needed is not there; the message names the node.
            InvalidGraph: Labels have moved so that the graph holds itself, or too many others in one another.
            MarwayError: As the registry raises.
        """
        found: dict[tuple[str, str], Part] = {}
        async for part in self._parts(record, (), needed=True, prefix=""):
            key = part.resolved.record.name, part.resolved.record.version
            known = found.get(key)
            if known is None or (part.needed and not known.needed):
                found[key] = part
        return tuple(found.values())

    async def _parts(
        self, record: VersionRecord, way: tuple[str, ...], *, needed: bool, prefix: str
    ) -> AsyncIterator[Part]:
        if record.id in way or len(way) == DEPTH_MAX:
            why = "holds itself" if record.id in way else f"lies more than {DEPTH_MAX} graphs deep"
            raise InvalidGraph(
                f"{record.name} {record.version} {why}: a label was moved; have its node name a version",
                model=record.name,
                version=record.version,
            )
        graph = await self._graph_of(record)
        is_needed = dict(_needed(graph, graph.start, needed))
        for each in references(graph):
            wanted = is_needed[each.node] and each.role != "fallback"
            node = prefix + each.node
            try:
                resolved = await self._resolver.resolve(each.model, each.selector)
                if resolved.record.backend != GRAPH_BACKEND:
                    yield Part(node, resolved, wanted)
                    continue
                below = self._parts(resolved.record, (*way, record.id), needed=wanted, prefix=f"{node}/")
                async for part in below:
                    yield part
            except MarwayError as exc:
                if wanted:
                    raise of_node(exc, node) from exc
                _log.info("%s %s: node %s: %s", record.name, record.version, node, exc.message)


def of_node(error: MarwayError, node: str) -> MarwayError:
    """Return an error, of the same kind, that says which node of a graph it is about."""
    named = type(error)(
        f"node {node}: {error.message}",
        model=error.model,
        version=error.version,
        retry_after_s=error.retry_after_s,
    )
    named.node = node
    return named


def _needed(graph: Graph, name: str, needed: bool) -> Iterator[tuple[str, bool]]:
    """Yield each node from ``name`` down, and whether the graph fails where it does."""
    node = graph.nodes[name]
    needed = needed and node.required and node.fallback is None
    yield name, needed
    all_of_them = not isinstance(node, ParallelNode) or node.wait in ("all", len(node.nodes))
    for child in node.children:
        yield from _needed(graph, child, needed and all_of_them)
