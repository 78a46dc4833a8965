"""A graph as people look at it: a tree of text, or a diagram for Mermaid or Graphviz."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from marway.errors import clip
from marway.graphs.document import Graph
from marway.graphs.nodes import LookupNode, ModelNode, ParallelNode, SequenceNode, SplitterNode, SwitchNode

__all__ = ["FORMATS", "DrawFormat", "draw_graph"]

DrawFormat = Literal["text", "mermaid", "dot"]
_EXPRESSION_SHOWN: Final = 60


def draw_graph(graph: Graph, drawn: DrawFormat = "text") -> str:
    """Return a drawing of a graph, lines without a newline at its end."""
    return "\n".join(FORMATS[drawn](graph))


# -- text ------------------------------------------------------------------------------------------------------


def _text(graph: Graph) -> Iterator[str]:
    yield from _tree(graph, graph.start, "", "", "")
    if graph.output is not None:
        yield f"answers {graph.output}"


def _tree(graph: Graph, name: str, lead: str, below: str, label: str) -> Iterator[str]:
    yield f"{lead}{label}{name}: {_words(graph.nodes[name])}"
    children = list(_branches(graph.nodes[name]))
    for number, (child, branch) in enumerate(children, 1):
        last = number == len(children)
        yield from _tree(
            graph, child, f"{below}{'└─ ' if last else '├─ '}", f"{below}{'   ' if last else '│  '}", branch
        )


def _branches(node: Any) -> Iterator[tuple[str, str]]:
    """Yield a node's children, each with what leads to it."""
    if isinstance(node, SwitchNode):
        for case in node.cases:
            yield case.node, f"when {_short(case.when)}: "
        if node.default is not None:
            yield node.default, "else: "
    elif isinstance(node, SplitterNode):
        total = sum(node.weights.values())
        for child, weight in node.weights.items():
            yield child, f"{100 * weight / total:.4g} %: "
    else:
        for child in node.children:
            yield child, ""


def _words(node: Any) -> str:
    """Return what a node does, and what becomes of it where it fails, in one line."""
    return ", ".join((_what(node), *_settings(node)))


def _what(node: Any) -> str:
    if isinstance(node, ModelNode):
        given = "" if node.input is None else f", given {_short(node.input)}"
        if node.parts is not None:
            given = f", given {', '.join(node.parts.values())}"
        if node.tensors is not None:
            given = ", given " + ", ".join(f"{source} as {target}" for source, target in node.tensors.items())
        return f"model {node.model}/{node.selector}{given}"
    if isinstance(node, LookupNode):
        columns = "" if node.columns is None else f" {', '.join(node.columns)}"
        return f"lookup{columns} of {node.table}/{node.selector} by {_short(node.key)} into {node.into}"
    if isinstance(node, ParallelNode):
        return f"parallel, {_waits(node)}"
    if isinstance(node, SplitterNode):
        return "splitter" if node.sticky == "request" else f"splitter by {node.sticky}"
    return str(node.kind)


def _waits(node: ParallelNode) -> str:
    return f"the first {node.wait} of {len(node.nodes)}" if isinstance(node.wait, int) else node.wait


def _settings(node: Any) -> Iterator[str]:
    if node.timeout_s is not None:
        yield f"within {node.timeout_s:g} s"
    if node.retries:
        yield f"{node.retries} {'retry' if node.retries == 1 else 'retries'}"
    if node.fallback is not None:
        other = node.fallback
        what = f"{other.model}/{other.selector}" if other.model is not None else _short(json.dumps(other.constant))
        yield f"else {what}"
    if not node.required:
        yield "may fail"


def _short(text: str) -> str:
    return clip(" ".join(text.split()), _EXPRESSION_SHOWN)


# -- diagrams --------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Diagram:
    """Boxes by their id, with their shape and text; arrows between them, with theirs."""

    boxes: dict[str, tuple[str, str]] = field(default_factory=dict)
    arrows: list[tuple[str, str, str]] = field(default_factory=list)


def _diagram(graph: Graph) -> _Diagram:
    made = _Diagram()
    made.boxes["request_"] = "round", "request"
    ends = _placed(graph, graph.start, [("request_", "")], made)
    made.boxes["answer_"] = "round", "answer" if graph.output is None else f"answer: {_short(graph.output)}"
    made.arrows += [(end, "answer_", label) for end, label in ends]
    return made


def _placed(graph: Graph, name: str, comes: list[tuple[str, str]], made: _Diagram) -> list[tuple[str, str]]:
    """Draw a node behind what comes before it; return what comes before whatever is behind it."""
    node = graph.nodes[name]
    if isinstance(node, SequenceNode):
        for child in node.nodes:
            comes = _placed(graph, child, comes, made)
        return comes
    branches = list(_branches(node))
    made.boxes[name] = ("fork" if branches else "box"), f"{name}: {_words(node)}"
    made.arrows += [(source, name, label) for source, label in comes]
    if not branches:
        return [(name, "")]
    ends = [end for child, label in branches for end in _placed(graph, child, [(name, label.removesuffix(": "))], made)]
    if not isinstance(node, ParallelNode):
        return ends
    join = f"{name}_joined"
    made.boxes[join] = "round", _waits(node)
    made.arrows += [(end, join, label) for end, label in ends]
    return [(join, "")]


def _mermaid(graph: Graph) -> Iterator[str]:
    made = _diagram(graph)
    around = {"round": ("([", "])"), "box": ("[", "]"), "fork": ("{{", "}}")}
    yield "flowchart TD"
    for name, (shape, text) in made.boxes.items():
        begin, end = around[shape]
        yield f"  {name}{begin}{_mermaid_text(text)}{end}"
    for source, target, label in made.arrows:
        edge = f"|{_mermaid_text(label)}|" if label else ""
        yield f"  {source} -->{edge} {target}"


def _dot(graph: Graph) -> Iterator[str]:
    made = _diagram(graph)
    shapes = {"round": "oval", "box": "box", "fork": "hexagon"}
    yield "digraph {"
    for name, (shape, text) in made.boxes.items():
        yield f"  {name} [shape={shapes[shape]}, label={_dot_text(text)}];"
    for source, target, label in made.arrows:
        edge = f" [label={_dot_text(label)}]" if label else ""
        yield f"  {source} -> {target}{edge};"
    yield "}"


def _mermaid_text(text: str) -> str:
    return '"' + text.replace("#", "#35;").replace('"', "#quot;") + '"'


def _dot_text(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


FORMATS: Final[Mapping[DrawFormat, Callable[[Graph], Iterator[str]]]] = {
    "text": _text,
    "mermaid": _mermaid,
    "dot": _dot,
}
"""What draws, by what it draws for."""
