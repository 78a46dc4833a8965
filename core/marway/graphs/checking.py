"""Whether a graph can be run: its expressions, and what it names in the registry."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

from marway.errors import InvalidInput, NotFound
from marway.graphs.document import GRAPH_BACKEND, TABLE_BACKEND, Graph
from marway.graphs.expressions import looks_of
from marway.graphs.nodes import LookupNode, ModelNode, ParallelNode, SequenceNode
from marway.records import VersionRecord
from marway.refs import Reference, is_label

__all__ = ["DEPTH_MAX", "GraphReference", "Published", "check_graph", "pinned", "references"]

DEPTH_MAX: Final = 4
"""Most graphs in one another, the outermost counted."""


@dataclass(frozen=True, slots=True)
class GraphReference:
    """A version that a node names.

    Attributes:
        node: The node's name.
        role: Whether the node asks it, looks up rows in it, or has it answer in its place.
        model, selector: Which: a label or a version.
        pin: Whether publishing writes the version in the place of the label.
    """

    node: str
    role: Literal["model", "table", "fallback"]
    model: str
    selector: str
    pin: bool = False

    @property
    def is_pinned(self) -> bool:
        """Whether it stands for one version for ever."""
        return not is_label(self.selector)

    def __str__(self) -> str:
        return f"{self.model}/{self.selector}"


class Published(Protocol):
    """What is asked of a registry; `marway.registry.Registry` is one."""

    def resolve(self, reference: Reference) -> VersionRecord:
        """Return a version; raise `NotFound`, saying what there is."""

    def graph(self, record: VersionRecord) -> Graph:
        """Return the document of a version that is a graph; raise `InvalidInput` where it has none."""


def references(graph: Graph) -> tuple[GraphReference, ...]:
    """Return all that a graph's nodes name outside of it, in the order of the nodes."""
    found = []
    for name, node in graph.nodes.items():
        if isinstance(node, ModelNode):
            found.append(GraphReference(name, "model", node.model, node.selector, node.pin))
        elif isinstance(node, LookupNode):
            found.append(GraphReference(name, "table", node.table, node.selector, node.pin))
        if node.fallback is not None and node.fallback.model is not None:
            found.append(GraphReference(name, "fallback", node.fallback.model, node.fallback.selector))
    return tuple(found)


def pinned(graph: Graph, versions: Mapping[tuple[str, str], str]) -> Graph:
    """Return a graph whose nodes that pin name a version in the place of their label.

    Args:
        graph: The graph.
        versions: The version that each (model, label) stands for; one that is missing is left as it is.
    """
    nodes: dict[str, Any] = {}
    for each in references(graph):
        if each.pin and (version := versions.get((each.model, each.selector))) is not None:
            nodes[each.node] = graph.nodes[each.node].model_copy(update={"selector": version})
    return graph.model_copy(update={"nodes": {**graph.nodes, **nodes}}) if nodes else graph


def check_graph(graph: Graph, published: Published | None = None, *, model: str | None = None) -> list[str]:
    """Return what is wrong with a graph, a sentence each, with the node's name; nothing, where it can be run.

    Args:
        graph: The graph.
        published: Where what it names has to be; None: only what can be said without is looked at.
        model: What it is to be published as, so that one that leads to itself is found.
    """
    problems = [*_expressions(graph)]
    if published is not None:
        for each in references(graph):
            problems += _references(each, graph, published, (model,) if model is not None else (None,), each.node)
    return problems


# -- expressions -----------------------------------------------------------------------------------------------


def _expressions(graph: Graph) -> Iterator[str]:
    places = dict(_places(graph, graph.start, ()))
    for name, node in graph.nodes.items():
        for expression in node.expressions:
            looks = looks_of(expression)
            where = f"node {name}: {expression!r}"
            yield from (f"{where} {problem}" for problem in looks.problems)
            for seen in looks.nodes:
                if (why := _never_before(graph, places, seen, name)) is not None:
                    yield f"{where} looks at nodes.{seen}, and {why}"
    if graph.output is not None:
        looks = looks_of(graph.output)
        yield from (f"output: {graph.output!r} {problem}" for problem in looks.problems)
        for seen in looks.nodes:
            if seen not in graph.nodes:
                yield f"output: {graph.output!r} looks at nodes.{seen}, and {_no_node(graph, seen)}"


def _places(graph: Graph, name: str, above: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each node from ``name`` down with the way to it: the names from the start to itself."""
    way = (*above, name)
    yield name, way
    for child in graph.nodes[name].children:
        yield from _places(graph, child, way)


def _never_before(graph: Graph, places: Mapping[str, tuple[str, ...]], seen: str, by: str) -> str | None:
    """Return why node ``seen`` can never have ended when ``by`` begins; None where it can."""
    if seen not in graph.nodes:
        return _no_node(graph, seen)
    if seen == by:
        return "that is the node itself"
    first, second = places[seen], places[by]
    shared = next((i for i, pair in enumerate(zip(first, second, strict=False)) if pair[0] != pair[1]), None)
    if shared is None:
        return f"{seen} holds this node: it ends after it" if len(first) < len(second) else f"{seen} is part of it"
    holder = graph.nodes[first[shared - 1]]
    if isinstance(holder, SequenceNode):
        children = holder.children
        before = children.index(first[shared]) < children.index(second[shared])
        return None if before else f"{seen} begins only when this node has ended"
    if isinstance(holder, ParallelNode):
        return f"{seen} runs beside this node"
    return f"of {first[shared]} and {second[shared]} only one runs for a request"


def _no_node(graph: Graph, name: str) -> str:
    return f"there is no node {name}: there are {', '.join(graph.nodes)}"


# -- what is published -----------------------------------------------------------------------------------------


def _references(
    reference: GraphReference, graph: Graph, published: Published, way: tuple[str | None, ...], node: str
) -> list[str]:
    """Return what is wrong with a reference and with all that it leads to.

    Args:
        reference: A reference of ``graph``, the graph that is checked or one below it.
        graph: Whose it is.
        published: The registry.
        way: The models of the graphs from the one that is checked down to ``graph``.
        node: The node of the graph that is checked that leads here.
    """
    below = "" if len(way) == 1 else f", over node {reference.node} of {' → '.join(map(str, way[1:]))}"
    what = f"node {node}{below}:"
    if reference.model in way and not reference.is_pinned:
        return [
            f"{what} {reference} leads back to {reference.model}: labels move, so a graph may hold itself by none; a "
            "version of it may be named"
        ]
    try:
        record = published.resolve(Reference(reference.model, reference.selector))
    except NotFound as exc:
        return [f"{what} {exc.message}"]
    problem = _unfit(reference, graph, record)
    if problem is not None:
        return [f"{what} {problem}"]
    if record.backend != GRAPH_BACKEND:
        return []
    if len(way) == DEPTH_MAX:
        return [f"{what} {reference} is a graph, and {DEPTH_MAX} graphs in one another are most"]
    try:
        inner = published.graph(record)
    except InvalidInput as exc:
        return [f"{what} {exc.message}"]
    found = []
    for each in references(inner):
        found += _references(each, inner, published, (*way, record.name), node)
    return found


def _unfit(reference: GraphReference, graph: Graph, record: VersionRecord) -> str | None:
    """Return why a version cannot be what a node takes it for; None where it can."""
    is_table = record.backend == TABLE_BACKEND
    named = f"{record.name} {record.version}"
    node = graph.nodes[reference.node]
    if isinstance(node, LookupNode):
        if not is_table:
            return f"{named} is a model, and rows are looked up in tables: `marway table publish` makes one"
        known = [each.name for each in record.signature.outputs]
        missing = [each for each in node.columns or () if each not in known]
        return f"table {named} has no column {missing[0]}: it has {', '.join(known)}" if missing else None
    return f"{named} is a table: a node of kind lookup reads it" if is_table else None
