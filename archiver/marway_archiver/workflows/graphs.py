"""A workflow's graph as one of ours: a tree of sequences and parallel nodes that runs every node when TorchServe would.

TorchServe runs a node as soon as all that it is given the answers of have answered. Of a graph that can be taken apart
into parts one after the other and parts side by side (which is nearly any that people draw) the tree is exactly that.
Of one that cannot, all nodes that could begin do so side by side, and the others wait for all of these.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from marway.graphs import Graph, parse_graph
from marway.refs import Reference
from marway_archiver.workflows.reading import DEFAULTS, Workflow

__all__ = ["RETRIES_MAX", "graph_of", "node_names"]

RETRIES_MAX: Final = 10
"""Most retries of a node."""
_OTHERS: Final = re.compile(r"[^a-z0-9_]+")
_LONGEST: Final = 32
_BODY: Final = "body"
"""What a handler knows the answer of a single node by; answers of several have the names of their nodes."""

Items = list["str | list[Items]"]
"""Nodes one after the other; in the place of one, several such side by side."""


def graph_of(workflow: Workflow, asked: Mapping[str, Reference]) -> Graph:
    """Return the graph that answers as a workflow does.

    Args:
        workflow: The workflow.
        asked: The version that is asked by each node.

    Raises:
        InvalidGraph: It has more nodes, or deeper ones, than a graph may have.
    """
    names = node_names(workflow.nodes)
    nodes: dict[str, dict[str, Any]] = {}
    start = _placed(_taken_apart(frozenset(workflow.nodes), workflow), names, nodes)
    for node in workflow.nodes:
        nodes[names[node]] = _node(workflow, node, asked[node], names)
    document: dict[str, Any] = {"format": 1, "nodes": nodes, "start": start}
    leaves = [each for each in workflow.nodes if not workflow.edges.get(each)]
    if len(leaves) > 1:  # TorchServe answers with an object of what these answered
        document["output"] = f"{{{', '.join(f'{json.dumps(each)}: nodes.{names[each]}' for each in leaves)}}}"
    return parse_graph(json.dumps(document))


def node_names(theirs: Iterable[str]) -> dict[str, str]:
    """Return what each node is called: as it was, or as near to it as `marway.graphs` allows, and no two alike."""
    names: dict[str, str] = {}
    for each in theirs:
        near = _OTHERS.sub("_", each.lower()).strip("_")
        near = near if near[:1].isalpha() else f"node_{near}"
        name, number = near[:_LONGEST], 2
        while name in names.values():
            end = f"_{number}"
            name, number = f"{near[: _LONGEST - len(end)]}{end}", number + 1
        names[each] = name
    return names


def _node(workflow: Workflow, node: str, asked: Reference, names: Mapping[str, str]) -> dict[str, Any]:
    model = workflow.models.get(node)

    def setting(name: str) -> int:
        return model.setting(name) if model is not None else workflow.settings.get(name, DEFAULTS[name])

    made: dict[str, Any] = {"kind": "model", "model": asked.name, "selector": asked.selector}
    made["timeout_s"] = max(setting("timeout-ms"), 1) / 1000
    made["retries"] = min(setting("retry-attempts"), RETRIES_MAX)
    before = workflow.before(node)
    if before:
        parts = {each: names[each] for each in before}
        made["parts"] = parts if len(before) > 1 else {_BODY: names[before[0]]}
    return made


# -- the tree --------------------------------------------------------------------------------------------------


def _taken_apart(nodes: Collection[str], workflow: Workflow) -> Items:
    """Return nodes in an order in which each comes behind all that it is given the answers of."""
    head: Items = []
    tail: Items = []
    left = set(nodes)
    while left:
        apart = _apart(left, workflow)
        if len(apart) > 1:
            head.append([_taken_apart(each, workflow) for each in apart])
            break
        first = _in_order(workflow, (each for each in left if left.isdisjoint(workflow.before(each))))
        last = _in_order(workflow, (each for each in left if left.isdisjoint(workflow.edges.get(each, ()))))
        if len(first) == 1:
            head.append(first[0])
            left.discard(first[0])
        elif len(last) == 1:
            tail.append(last[0])
            left.discard(last[0])
        else:
            head.append([[each] for each in first])
            left -= set(first)
    return [*head, *reversed(tail)]


def _apart(nodes: Collection[str], workflow: Workflow) -> list[set[str]]:
    """Return the parts of nodes that have nothing to do with one another."""
    left, found = set(nodes), []
    for start in _in_order(workflow, nodes):
        if start not in left:
            continue
        part, new = set(), {start}
        while new:
            part |= new
            beside = {each for node in new for each in (*workflow.before(node), *workflow.edges.get(node, ()))}
            new = (beside & left) - part
        left -= part
        found.append(part)
    return found


def _in_order(workflow: Workflow, nodes: Iterable[str]) -> list[str]:
    wanted = set(nodes)
    return [each for each in workflow.nodes if each in wanted]


def _placed(items: Items, names: Mapping[str, str], nodes: dict[str, dict[str, Any]]) -> str:
    """Add the nodes that hold others; return the name of the one that holds all of ``items``."""
    made = [
        names[item]
        if isinstance(item, str)
        else _holder("parallel", [_placed(each, names, nodes) for each in item], names, nodes)
        for item in items
    ]
    return made[0] if len(made) == 1 else _holder("sequence", made, names, nodes)


def _holder(kind: str, held: list[str], names: Mapping[str, str], nodes: dict[str, dict[str, Any]]) -> str:
    number = 1
    while (name := f"{kind}_{number}") in nodes or name in names.values():
        number += 1
    nodes[name] = {"kind": kind, "nodes": held}
    return name
