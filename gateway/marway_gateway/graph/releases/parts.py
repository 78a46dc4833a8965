"""What the nodes of a graph ask, also through graphs in it: what is loaded ahead, and has to be there."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterator

from marway.errors import InvalidGraph, MarwayError
from marway.graphs import DEPTH_MAX, GRAPH_BACKEND, Graph, ParallelNode, references
from marway.records import VersionRecord
from marway.resolve.resolver import Resolver
from marway_gateway.admin.graph_versions import Part, of_node
from marway_gateway.graph.documents import Documents

__all__ = ["Parts"]

_log = logging.getLogger(__name__)


class Parts:
    """Follows the references of graphs.

    Args:
        documents: Gives the documents of graphs.
        resolver: Knows which versions nodes ask now.
    """

    def __init__(self, documents: Documents, resolver: Resolver) -> None:
        self._documents = documents
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
        graph = (await self._documents.plan(record)).graph
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


def _needed(graph: Graph, name: str, needed: bool) -> Iterator[tuple[str, bool]]:
    """Yield each node from ``name`` down, and whether the graph fails where it does."""
    node = graph.nodes[name]
    needed = needed and node.required and node.fallback is None
    yield name, needed
    all_of_them = not isinstance(node, ParallelNode) or node.wait in ("all", len(node.nodes))
    for child in node.children:
        yield from _needed(graph, child, needed and all_of_them)
