"""Graphs: several models called for one answer, as a document that is published like any version."""

from __future__ import annotations

from marway.graphs.checking import DEPTH_MAX, GraphReference, Published, check_graph, pinned, references
from marway.graphs.document import GRAPH_BACKEND, GRAPH_FILE, TABLE_BACKEND, Graph, encode_graph, parse_graph
from marway.graphs.drawing import draw_graph
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
from marway.graphs.reading import TENSOR_FRAMEWORK, fetch_graph, read_graph, takes_tensors

__all__ = [
    "DEPTH_MAX",
    "GRAPH_BACKEND",
    "GRAPH_FILE",
    "TABLE_BACKEND",
    "TENSOR_FRAMEWORK",
    "Case",
    "Fallback",
    "Graph",
    "GraphReference",
    "LookupNode",
    "ModelNode",
    "Node",
    "ParallelNode",
    "Published",
    "SequenceNode",
    "SplitterNode",
    "SwitchNode",
    "check_graph",
    "draw_graph",
    "encode_graph",
    "fetch_graph",
    "parse_graph",
    "pinned",
    "read_graph",
    "references",
    "takes_tensors",
]
