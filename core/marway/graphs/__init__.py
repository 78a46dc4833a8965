"""Graphs: several models called for one answer, as a document that is published like any version."""

from __future__ import annotations

from marway.graphs.document import GRAPH_BACKEND, GRAPH_FILE, Graph, encode_graph, parse_graph
from marway.graphs.nodes import (
    Case,
    Fallback,
    LookupNode,
    ModelNode,
    Node,
    ParallelNode,
    SequenceNode,
    SplitterNode,
    SwitchNode,
)

__all__ = [
    "GRAPH_BACKEND",
    "GRAPH_FILE",
    "Case",
    "Fallback",
    "Graph",
    "LookupNode",
    "ModelNode",
    "Node",
    "ParallelNode",
    "SequenceNode",
    "SplitterNode",
    "SwitchNode",
    "encode_graph",
    "parse_graph",
]
