"""Whether a graph can be run: its expressions, and what it names."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from marway.errors import InvalidGraph, VersionNotFound
from marway.graphs import Graph, check_graph, parse_graph, pinned, references
from marway.graphs.expressions import looks_of
from marway.records import ArchiveRef, Signature, TensorSpec, VersionRecord
from marway.refs import Reference

MODEL = {"kind": "model", "model": "m"}


def graph(start: str = "all", output: str | None = None, **nodes: Mapping[str, Any]) -> Graph:
    document = {"nodes": nodes, "start": start} | ({} if output is None else {"output": output})
    return Graph.model_validate(document)


class Registry:
    """What is published, by `MODEL/SELECTOR`: a graph, or the backend of a record."""

    def __init__(self, **models: Graph | str) -> None:
        self.models = {name.replace("__", "/"): found for name, found in models.items()}

    def resolve(self, reference: Reference) -> VersionRecord:
        found = self.models.get(f"{reference.name}/{reference.selector}")
        if found is None:
            raise VersionNotFound(f"there is no {reference.name}/{reference.selector}")
        column = TensorSpec(name="age", datatype="FP64", shape=(-1,))
        return VersionRecord(
            id="id1",
            name=reference.name,
            version="1",
            archive=ArchiveRef(sha256="0" * 64, size_bytes=1, kind="bundle"),
            backend="graph" if isinstance(found, Graph) else found,
            signature=Signature(outputs=(column,)) if found == "table" else Signature(),
            created_at=datetime.now(UTC),
            publisher="me",
        )

    def graph(self, record: VersionRecord) -> Graph:
        found = self.models[f"{record.name}/PROD"]
        assert isinstance(found, Graph)
        return found


def only(model: str, selector: str = "PROD") -> Graph:
    return graph("n", n={"kind": "model", "model": model, "selector": selector})


@pytest.mark.parametrize(
    ("expression", "nodes"),
    [
        ("request.a.b", ()),
        ("nodes.a.b || nodes.c", ("a", "c")),
        ('nodes."a"[0].x', ("a",)),
        ("{x: nodes.a, y: [request, nodes.b]}", ("a", "b")),
        ("sort_by(nodes.a, &nodes)", ("a",)),
        ("nodes.a[?nodes > `1`].other", ("a",)),
        ("nodes.a[*].nodes.b", ("a",)),
        ("nodes | a", ("a",)),
        ("@.nodes.a", ("a",)),
        ("nodes.[a, b.c]", ("a", "b")),
        ("join(',', nodes.a) == request && !(nodes.b)", ("a", "b")),
        ("map(&foo, nodes.a)[]", ("a",)),
        ("`1`", ()),
    ],
)
def test_the_nodes_that_an_expression_looks_at_are_found_in_its_tree(expression: str, nodes: tuple[str, ...]) -> None:
    """`nodes.NAME` is found wherever an expression has it, and a field of that name elsewhere is none."""
    assert looks_of(expression) == (nodes, "request" in expression, ())


@pytest.mark.parametrize(
    ("expression", "problem"),
    [
        ("nodes", "takes `nodes` as a whole"),
        ("nodes.*", "takes `nodes` as a whole"),
        ("keys(nodes)", "takes `nodes` as a whole"),
        ("@", "takes `@` as a whole"),
        ("{a: @}", "takes `@` as a whole"),
        ("input.a", "names 'input'"),
        ("nodes[0]", "by number"),
        ("!nodes.b", "write `!(a.b)`"),
    ],
)
def test_an_expression_that_means_nothing_is_found(expression: str, problem: str) -> None:
    assert problem in looks_of(expression).problems[0]


SEQUENCE = {
    "all": {"kind": "sequence", "nodes": ["first", "choice", "side", "last"]},
    "first": MODEL,
    "choice": {"kind": "switch", "cases": [{"when": "nodes.first.ok", "node": "yes"}], "default": "no"},
    "yes": MODEL,
    "no": MODEL,
    "side": {"kind": "parallel", "nodes": ["left", "right"]},
    "left": MODEL,
    "right": MODEL,
    "last": MODEL,
}


@pytest.mark.parametrize(
    ("by", "seen", "problem"),
    [
        ("last", "first", None),
        ("last", "left", None),
        ("last", "yes", None),
        ("left", "choice", None),
        ("first", "last", "begins only when this node has ended"),
        ("left", "right", "right runs beside this node"),
        ("yes", "no", "only one runs for a request"),
        ("left", "side", "side holds this node"),
        ("left", "all", "all holds this node"),
        ("left", "left", "the node itself"),
        ("left", "nowhere", "there is no node nowhere"),
    ],
)
def test_an_expression_names_nodes_that_can_have_ended_before(by: str, seen: str, problem: str | None) -> None:
    """A node may look at what stands before it in a sequence, however deep either lies; else both are named."""
    nodes = {**SEQUENCE, by: {"kind": "model", "model": "m", "input": f"nodes.{seen}"}}
    found = check_graph(graph(**nodes))
    assert bool(found) is (problem is not None)
    if problem is not None:
        assert found[0].startswith(f"node {by}: 'nodes.{seen}' looks at nodes.{seen}, and ")
        assert problem in found[0]


def test_a_condition_looks_at_nothing_below_it_and_the_output_at_every_node() -> None:
    nodes = {**SEQUENCE, "choice": {"kind": "switch", "cases": [{"when": "nodes.yes", "node": "yes"}], "default": "no"}}
    assert "yes is part of it" in check_graph(graph(**nodes))[0]
    assert check_graph(graph(output="{a: nodes.left, b: nodes.all}", **SEQUENCE)) == []
    assert (
        "output: 'nodes.other' looks at nodes.other, and there is no"
        in check_graph(graph(output="nodes.other", **SEQUENCE))[0]
    )


def test_what_a_node_names_has_to_be_published_and_of_its_kind() -> None:
    """A model that is not there, a table where a model is meant, a model in a table's place and a column that a table
    has not are each told with the node's name, all at once.
    """
    nodes = {
        "all": {"kind": "sequence", "nodes": ["a", "b", "c", "d", "e"]},
        "a": {"kind": "model", "model": "gone", "selector": "1"},
        "b": {"kind": "model", "model": "users"},
        "c": {"kind": "lookup", "table": "m", "key": "request", "into": "u"},
        "d": {"kind": "lookup", "table": "users", "key": "request", "into": "u", "columns": ["age", "size"]},
        "e": {"kind": "model", "model": "m", "fallback": {"model": "m", "selector": "STG"}},
    }
    found = check_graph(graph(**nodes), Registry(m__PROD="torchserve", users__PROD="table"))
    assert found == [
        "node a: there is no gone/1",
        "node b: users 1 is a table: a node of kind lookup reads it",
        "node c: m 1 is a model, and rows are looked up in tables: `marway table publish` makes one",
        "node d: table users 1 has no column size: it has age",
        "node e: there is no m/STG",
    ]


def test_a_graph_that_leads_back_to_itself_is_told_with_the_node() -> None:
    """A label that leads back to the graph is a circle, at once or over others; an older version of it is none."""
    registry = Registry(b__PROD=only("c"), c__PROD=only("a"), a__1=only("m"), a__PROD=only("m"), m__PROD="native")
    assert "node n: a/PROD leads back to a" in check_graph(only("a"), registry, model="a")[0]
    assert "node n, over node n of b → c: a/PROD leads back to a" in check_graph(only("b"), registry, model="a")[0]
    assert check_graph(only("b"), registry, model="other") == []
    assert check_graph(only("a", "1"), registry, model="a") == []


def test_graphs_lie_four_deep_in_one_another_at_most() -> None:
    registry = Registry(c1__PROD="native", **{f"c{n}__PROD": only(f"c{n - 1}") for n in (2, 3, 4, 5)})
    assert check_graph(only("c4"), registry, model="top") == []
    assert (
        "node n, over node n of c5 → c4 → c3: c2/PROD is a graph, and 4 graphs"
        in check_graph(only("c5"), registry, model="top")[0]
    )


def test_pinning_writes_the_version_where_it_is_asked_for() -> None:
    nodes = {
        "all": {"kind": "sequence", "nodes": ["a", "b", "t"]},
        "a": {"kind": "model", "model": "m", "pin": True},
        "b": {"kind": "model", "model": "m"},
        "t": {"kind": "lookup", "table": "users", "key": "request", "into": "u", "pin": True},
    }
    found = pinned(graph(**nodes), {("m", "PROD"): "3", ("users", "PROD"): "7"})
    assert [(str(each), each.is_pinned) for each in references(found)] == [
        ("m/3", True),
        ("m/PROD", False),
        ("users/7", True),
    ]


def test_a_document_that_is_no_tree_names_the_node() -> None:
    with pytest.raises(InvalidGraph, match="node a: stands in start and in node a"):
        parse_graph('{"start": "a", "nodes": {"a": {"kind": "sequence", "nodes": ["a"]}}}')
