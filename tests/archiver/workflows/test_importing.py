"""TorchServe's workflows as graphs: what of a `.war` is published, the tree that its graph becomes, what is refused."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from marway.errors import InvalidArchive, MarwayError
from marway.graphs import Graph, ModelNode
from marway.refs import Reference
from marway.registry import Registry, open_registry
from marway_archiver.cli.graph import graph
from marway_archiver.workflows.graphs import graph_of, node_names
from marway_archiver.workflows.importing import import_workflow
from marway_archiver.workflows.reading import Workflow, WorkflowModel, opened_workflow
from support.torchserve import archive
from support.workflows import war

HANDLER = """
import words


def split(data, context):
    return data and [each["body"] for each in data]


def join(data, context):
    return data and [words.joined(data[0])]
"""
WORDS = "def joined(row):\n    return {name: bytes(value).decode() for name, value in row.items()}\n"
ECHO = "def handle(data, context):\n    return data and [str(row) for row in data]\n"
SPEC: dict[str, Any] = {
    "models": {
        "min-workers": 1,
        "max-workers": 2,
        "batch-size": 4,
        "max-batch-delay": 100,
        "retry-attempts": 5,
        "timeout-ms": 2500,
        "En-De": {"url": "first.mar"},
        "En-Fr": {"url": "second.mar", "batch-size": 1, "colour": "red"},
    },
    "dag": {"split": ["En-De", "En-Fr"], "En-De": ["join"], "En-Fr": ["join"]},
}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = open_registry(f"file://{tmp_path / 'registry'}")
    registry.create()
    return registry


@pytest.fixture
def store(tmp_path: Path) -> Path:
    store = tmp_path / "store"
    for name in ("first", "second"):
        archive(store, name, ECHO, file=f"{name}.mar", version="2.1")
    return store


def test_a_workflow_becomes_a_graph_of_versions(registry: Registry, store: Path, tmp_path: Path) -> None:
    """Models keep names and versions, functions are versions of their own, each node is given what TorchServe gives."""
    path = war(tmp_path, "translate", SPEC, HANDLER, files={"words.py": WORDS})
    done = import_workflow(path, registry=registry, model_store=store, label="PROD")
    assert {name: dict(node.model_dump(exclude_unset=True)) for name, node in done.graph.nodes.items()} == {
        "sequence_1": {"kind": "sequence", "nodes": ("split", "parallel_1", "join")},
        "parallel_1": {"kind": "parallel", "nodes": ("en_de", "en_fr")},
        "split": node_of("translate__split", "1.0"),
        "en_de": node_of("first", "2.1", body="split"),
        "en_fr": node_of("second", "2.1", body="split"),
        "join": node_of("translate__join", "1.0", **{"En-De": "en_de", "En-Fr": "en_fr"}),
    }
    assert registry.resolve(Reference("translate")).id == done.record.id
    first, second, join = (
        registry.resolve(Reference(*each)) for each in (("first", "2.1"), ("second", "2.1"), ("translate__join", "1.0"))
    )
    assert (first.serving.max_batch_rows, first.serving.max_workers) == (1, 2)  # no example proves batches
    assert (second.serving.max_batch_rows, join.serving.max_batch_rows) == (1, 1)
    settings = {
        (each.model.endpoint.model, said.name): said.outcome
        for each in done.report.adopted
        for said in each.model.settings
    }
    assert settings["translate__En-De", "max-batch-delay"] == "none"
    assert settings["translate__En-De", "batch-size"] == "changed"
    assert settings["translate__En-Fr", "colour"] == "none"
    again = import_workflow(path, registry=registry, model_store=store, label="PROD")
    assert again.record.id == done.record.id
    assert {each.outcome for each in again.report.adopted} == {"known"}


def node_of(model: str, version: str, **parts: str) -> dict[str, Any]:
    given = {"parts": parts} if parts else {}
    return {"kind": "model", "model": model, "selector": version, "timeout_s": 2.5, "retries": 5, **given}


@pytest.mark.extended  # takes a second; the versions that a workflow becomes are held by the test above
def test_another_workflow_under_a_version_that_is_there(registry: Registry, store: Path, tmp_path: Path) -> None:
    """Publishing is for ever: a workflow that has changed needs another version, and the first one stays as it is."""
    import_workflow(war(tmp_path, "w", SPEC, HANDLER, files={"words.py": WORDS}), registry=registry, model_store=store)
    changed = war(tmp_path, "w", SPEC, f"{HANDLER}\n# changed\n", files={"words.py": WORDS})
    with pytest.raises(InvalidArchive, match=r"w__split: .*other bytes|w__split: .*exists"):
        import_workflow(changed, registry=registry, model_store=store)
    done = import_workflow(changed, registry=registry, model_store=store, version="2.0", model_name="w2")
    assert (done.record.name, done.record.version) == ("w2", "2.0")


@pytest.mark.extended  # takes a second; what it prints comes from the report that the test above looks at
def test_on_the_terminal(store: Path, tmp_path: Path) -> None:
    """`marway graph import` says what is kept of each setting, and draws the graph."""
    path = war(tmp_path, "w", SPEC, HANDLER, files={"words.py": WORDS})
    flags = ["--registry", f"file://{tmp_path / 'registry'}", "--create-registry", "--model-store", str(store)]
    said = CliRunner().invoke(graph, ["import", str(path), *flags, "--label", "PROD"], catch_exceptions=False)
    for words in ("En-Fr", "max_batch_rows", "parallel_1: parallel, all", "published graph w 1.0", "w PROD → 1.0"):
        assert words in said.stdout
    again = CliRunner().invoke(graph, ["import", str(path), *flags, "--json"], catch_exceptions=False)
    document = json.loads(again.stdout)
    assert {each["outcome"] for each in document["versions"]} == {"known"}


# -- what is refused -------------------------------------------------------------------------------------------


def spec(**changes: Any) -> dict[str, Any]:
    return {**SPEC, **changes}


@pytest.mark.parametrize(
    ("specification", "handler", "says"),
    [
        ({"models": {}, "dag": {"a": ["b"], "b": ["c"], "c": ["a"]}}, HANDLER, "dag goes in a circle: a → b → c → a"),
        (spec(dag={"split": ["split"]}), HANDLER, "dag goes in a circle: split → split"),
        (
            spec(dag={"lost": ["En-De"]}),
            None,
            "lost is none of the models, so a function, and the archive has no handler",
        ),
        (spec(dag={"lost": ["En-De"]}), HANDLER, "function lost: "),
        (spec(dag={"split": "En-De"}), HANDLER, "dag.split is no list of nodes"),
        (spec(dag=[]), HANDLER, "dag is missing, or no mapping"),
        (spec(models=[]), HANDLER, "models is missing, or no mapping"),
        (spec(models={"En-De": {}}), HANDLER, "models.En-De is neither a setting nor a model with its url"),
        (spec(models={"batch-size": "many"}), HANDLER, "models.batch-size is many"),
        (spec(models={"En-De": {"url": "gone.mar"}}, dag={"En-De": []}), None, "gone.mar is not in"),
        (spec(models={"En-De": {"url": "../up.mar"}}, dag={"En-De": []}), None, "leads out of the model store"),
        (spec(models={"En-De": {"url": "https://x/a.mar"}}, dag={"En-De": []}), None, "is an address: fetch it"),
        ("models: &a {x: *a}\ndag: {}", HANDLER, "w.yaml:1: "),
        ("models: {}\nmodels: {}\n", HANDLER, "w.yaml:"),
        ("[1, 2]", HANDLER, "holds no mapping of models and dag"),
        ("models: !!python/object:os.system {}", HANDLER, "w.yaml:1: "),
    ],
)
def test_what_torchserve_would_refuse_or_nobody_should_read(
    registry: Registry, store: Path, tmp_path: Path, specification: Any, handler: str | None, says: str
) -> None:
    """Each is one sentence that names the file and the place; nothing of it is published."""
    path = war(tmp_path, "w", specification, handler, files={"words.py": WORDS})
    with pytest.raises(MarwayError) as failed:
        import_workflow(path, registry=registry, model_store=store)
    assert says in failed.value.message.replace("'", "")
    assert str(path) in failed.value.message
    assert list(registry.models()) == []


def test_an_archive_that_is_no_workflow(tmp_path: Path, store: Path) -> None:
    """A model's archive, a manifest that names what is not there, and a path out of the archive are refused."""
    hostile = tmp_path / "out.war"
    with zipfile.ZipFile(hostile, "w") as target:
        target.writestr("../evil.py", "")
    missing = war(tmp_path / "m", "w", SPEC, HANDLER, manifest={"workflowName": "w", "specFile": "gone.yaml"})
    nameless = war(tmp_path / "n", "w", SPEC, HANDLER, manifest={"specFile": "w.yaml"})
    for path, says in (
        (store / "first.mar", "has no WAR-INF/MANIFEST.json"),
        (hostile, "evil.py"),
        (missing, "specFile gone.yaml is not in the archive"),
        (nameless, "workflow.workflowName is missing"),
    ):
        with pytest.raises(InvalidArchive) as failed, opened_workflow(path):
            pass
        assert says in failed.value.message.replace("'", "")


# -- the tree --------------------------------------------------------------------------------------------------


def workflow_of(edges: Mapping[str, tuple[str, ...]]) -> Workflow:
    nodes = {each for one, to in edges.items() for each in (one, *to)}
    return Workflow("w", None, {each: WorkflowModel("a.mar", {}) for each in nodes}, edges, {})


def order_of(graph: Graph, name: str) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield each node that asks a model, and the nodes that have surely ended when it begins."""

    def walk(name: str, before: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
        node = graph.nodes[name]
        if isinstance(node, ModelNode):
            yield name, before
        for child in node.children:
            below = list(walk(child, before))
            yield from below
            if node.kind == "sequence":
                before |= {each for each, _ in below}

    yield from walk(name, frozenset())


def test_a_node_runs_when_all_that_it_is_given_has_answered() -> None:
    """Of random graphs every node stands once, behind all whose answers it is given, and is given just these."""
    draw = random.Random(21)
    for _ in range(30):
        nodes = [f"n{number}" for number in range(draw.randint(1, 9))]
        edges = {
            each: tuple(other for other in nodes[place + 1 :] if draw.random() < 0.35)
            for place, each in enumerate(nodes)
        }
        workflow = workflow_of(edges)
        made = graph_of(workflow, {each: Reference("m", "1.0") for each in nodes})
        order = dict(order_of(made, made.start))
        assert sorted(order) == sorted(nodes)
        for node, ended in order.items():
            model = made.nodes[node]
            assert isinstance(model, ModelNode)
            given = set((model.parts or {}).values())
            assert given == set(workflow.before(node))
            assert given <= ended
        leaves = [each for each in nodes if not edges[each]]
        assert (made.output is None) is (len(leaves) == 1)


@pytest.mark.parametrize(
    ("edges", "tree"),
    [
        ({"a": ("b",), "b": ("c",)}, ["a", "b", "c"]),
        ({"a": ("b", "c"), "b": ("d",), "c": ("e",), "d": ("f",), "e": ("f",)}, ["a", {"b d", "c e"}, "f"]),
        ({"a": ("b", "c"), "b": ("c",)}, ["a", "b", "c"]),
    ],
)
def test_branches_do_not_wait_for_one_another(edges: Mapping[str, tuple[str, ...]], tree: list[Any]) -> None:
    """What can be taken apart into parts one after the other and side by side runs as TorchServe has it."""
    made = graph_of(workflow_of(edges), {each: Reference("m", "1.0") for each in "abcdef"})
    found: list[Any] = []
    for name in made.nodes[made.start].children:
        node = made.nodes[name]
        found.append({" ".join(made.nodes[each].children) for each in node.children} if node.children else name)
    assert found == tree


def test_names_of_nodes() -> None:
    """Names that a graph does not allow become near ones, no two of which are alike."""
    long = "x" * 40
    names = node_names(["a-b", "a.b", "A_B", "1st", "", long, f"{long}y"])
    assert list(names.values()) == ["a_b", "a_b_2", "a_b_3", "node_1st", "node_", "x" * 32, f"{'x' * 30}_2"]
