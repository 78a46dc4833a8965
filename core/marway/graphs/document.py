"""A graph's document.

The nodes are a tree: one starts, those that hold others (sequence, parallel, switch, splitter) name them, and no node
stands in two places. So each runs once at most for a request, nothing can run in a circle, and `nodes.NAME` in an
expression has one meaning.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from marway.errors import InvalidGraph, clip
from marway.graphs.nodes import Expression, Node, NodeName, Strict

__all__ = [
    "DOCUMENT_BYTES_MAX",
    "GRAPH_BACKEND",
    "GRAPH_FILE",
    "NODES_MAX",
    "TABLE_BACKEND",
    "Graph",
    "encode_graph",
    "parse_graph",
]

GRAPH_BACKEND: Final = "graph"
"""Backend of records that are graphs: gateways run them, no pod does."""
TABLE_BACKEND: Final = "table"
"""Backend of records that are tables of rows by key, for nodes of kind lookup: gateways read them."""
GRAPH_FILE: Final = "graph.json"
"""The document's file below the root of a graph's bundle."""
NODES_MAX: Final = 64
"""Most nodes of one graph."""
DOCUMENT_BYTES_MAX: Final = 256 * 1024
"""Longest document of a graph."""
_NESTED_MAX: Final = 16
_KINDS: Final = ("model", "sequence", "parallel", "switch", "splitter", "lookup")


class Graph(Strict):
    """A graph.

    Attributes:
        format: 1; a document of another is of a newer Marway.
        nodes: By name.
        start: The node that is given the request, and whose answer is the graph's.
        output: JMESPath of the graph's answer over `request` and `nodes`; None: what ``start`` answered, as it is.
        protocol: What a request is: a body of any kind (requests of tensors are taken row by row then), or a message of
            the Open Inference Protocol, which is passed on whole.
    """

    format: Literal[1] = 1
    nodes: Annotated[Mapping[NodeName, Node], Field(min_length=1, max_length=NODES_MAX)]
    start: NodeName
    output: Expression | None = None
    protocol: Literal["body", "open-inference"] = "body"

    @model_validator(mode="after")
    def _is_a_tree(self) -> Graph:
        reached = dict(_walk(self.nodes, self.start, "start", 1, {}))
        unreached = [name for name in self.nodes if name not in reached]
        if unreached:
            raise ValueError(f"node {unreached[0]}: nothing leads to it from the start, {self.start}")
        return self


def _walk(
    nodes: Mapping[str, Any], name: str, where: str, depth: int, holders: dict[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield each node below ``name``, and where it stands.

    Raises:
        ValueError: One stands in two places, is not there, or is nested too deeply.
    """
    if name not in nodes:
        raise ValueError(f"{where}: there is no node {name}: there are {', '.join(nodes)}")
    if name in holders:
        raise ValueError(f"node {name}: stands in {holders[name]} and in {where}; a node has one place")
    if depth > _NESTED_MAX:
        raise ValueError(f"node {name}: lies {depth} nodes deep; {_NESTED_MAX} is most")
    holders[name] = where
    yield name, where
    for child in nodes[name].children:
        yield from _walk(nodes, child, f"node {name}", depth + 1, holders)


def parse_graph(data: bytes | str) -> Graph:
    """Return the graph that a document in JSON or YAML is; what it names outside of itself is not looked at.

    Raises:
        InvalidGraph: It is none; the message names the node.
    """
    if len(data) > DOCUMENT_BYTES_MAX:
        raise InvalidGraph(f"a graph's document has at most {DOCUMENT_BYTES_MAX} bytes, and this one {len(data)}")
    try:
        raw = yaml.safe_load(data)
        if isinstance(raw, dict) and isinstance(raw.get("format"), int) and raw["format"] > 1:
            raise InvalidGraph(f"the graph is of format {raw['format']}: a newer Marway made it")
        return Graph.model_validate(raw)
    except ValidationError as exc:
        raise InvalidGraph("; ".join(_problem(each) for each in exc.errors(include_url=False)[:5])) from exc
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as exc:
        raise InvalidGraph(f"a graph is JSON or YAML, and this is neither: {clip(str(exc), 300)}") from exc


def encode_graph(graph: Graph) -> bytes:
    """Return the canonical bytes: ASCII JSON, keys sorted, nothing that is not said."""
    return f"{json.dumps(graph.model_dump(mode='json', exclude_unset=True), indent=1, sort_keys=True)}\n".encode()


def _problem(error: Any) -> str:
    """Return what pydantic found wrong, with the node's name where it is one's."""
    where = [str(part) for part in error["loc"]]
    text = error["msg"].removeprefix("Value error, ")
    if len(where) > 1 and where[0] == "nodes":
        field = ".".join(part for part in where[2:] if part not in _KINDS and part != "[key]")
        return f"node {clip(where[1], 40)}: {f'{field}: ' if field else ''}{clip(text, 300)}"
    return f"{'.'.join(where)}: {clip(text, 300)}" if where else clip(text, 300)
