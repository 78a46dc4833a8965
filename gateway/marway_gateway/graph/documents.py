"""The documents of graphs, ready to run: fetched once by their archive's digest, which never has another."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jmespath

from marway.graphs import Graph, SequenceNode, SplitterNode, SwitchNode
from marway.graphs.expressions import looks_of
from marway.graphs.reading import fetch_graph
from marway.records import VersionRecord
from marway.resolve.reader import LookUps, RegistryReader

__all__ = ["Documents", "Expression", "Plan"]

_PLANS_MAX: Final = 256
"""Graphs that are held: some 100 KiB each at most."""
_WAIT_S: Final = 30.0


@dataclass(frozen=True, slots=True)
class Expression:
    """An expression of a graph.

    Attributes:
        text: As the document has it.
        search: Gives what it selects of an object of `request` and `nodes`.
        request: Whether it looks at the request.
        nodes: Which nodes' answers it looks at.
    """

    text: str
    search: Callable[[Any], Any]
    request: bool
    nodes: tuple[str, ...]

    @classmethod
    def of(cls, text: str) -> Expression:
        looks = looks_of(text)
        return cls(text, jmespath.compile(text).search, looks.request, looks.nodes)


@dataclass(frozen=True, slots=True)
class Plan:
    """A graph, ready to run.

    Attributes:
        graph: Its document.
        expressions: All of its expressions, by their text.
        last: The nodes whose answer, where they run, is the graph's.
    """

    graph: Graph
    expressions: Mapping[str, Expression]
    last: frozenset[str]

    @classmethod
    def of(cls, graph: Graph) -> Plan:
        texts = [text for node in graph.nodes.values() for text in node.expressions]
        if graph.output is not None:
            texts.append(graph.output)
        last = frozenset(_last(graph, graph.start)) if graph.output is None else frozenset()
        return cls(graph, {text: Expression.of(text) for text in texts}, last)


def _last(graph: Graph, name: str) -> Iterator[str]:
    yield name
    node = graph.nodes[name]
    if isinstance(node, SequenceNode):
        yield from _last(graph, node.nodes[-1])
    elif isinstance(node, SwitchNode | SplitterNode):
        for child in node.children:
            yield from _last(graph, child)


class Documents:
    """Fetches the documents of graphs from the registry, and keeps those used last.

    Args:
        reader: Reads the registry.
        clock: Monotonic seconds.
    """

    def __init__(self, reader: RegistryReader, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._reader = reader
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._look_ups = LookUps(wait_s=_WAIT_S, negative_ttl_s=0.0, clock=clock)

    async def plan(self, record: VersionRecord) -> Plan:
        """Return a graph, ready to run.

        Raises:
            ArchiveCorrupt: Its archive is not there, or has other bytes than the record says.
            InvalidGraph: It holds no graph, or one that cannot be run.
            RegistryUnavailable: The registry does not answer.
        """
        digest = record.archive.sha256
        plan = self._plans.get(digest)
        if plan is None:
            plan = await self._look_ups.once((digest,), lambda: self._fetched(record))
        else:
            self._plans.move_to_end(digest)
        return plan

    async def aclose(self) -> None:
        """Give up what is being fetched."""
        await self._look_ups.aclose()

    async def _fetched(self, record: VersionRecord) -> Plan:
        plan = Plan.of(await self._reader.call(fetch_graph, self._reader.registry, record))
        self._plans[record.archive.sha256] = plan
        if len(self._plans) > _PLANS_MAX:
            self._plans.popitem(last=False)
        return plan
