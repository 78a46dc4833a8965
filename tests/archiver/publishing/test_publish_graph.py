"""Graphs from a document to a version, and what the verbs say of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from click.testing import Result
from typer.testing import CliRunner

from marway.answers.difference import golden_of
from marway.errors import InvalidArchive, InvalidGraph, InvalidInput, StateConflict
from marway.graphs import Graph, draw_graph
from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_archiver import Example, pack_bundle, publish_archive, publish_graph
from marway_archiver.cli import register
from support.registry import publish

Run = Callable[..., Result]

DOCUMENT = """
nodes:
  all: {kind: sequence, nodes: [language, pick]}
  language: {kind: model, model: lang, pin: true, timeout_s: 0.5, retries: 1}
  pick:
    kind: switch
    cases: [{when: "nodes.language == 'de'", node: german}]
    default: both
  german: {kind: model, model: intent, selector: "1.0", input: request.text, required: false}
  both: {kind: parallel, nodes: [english, spare], wait: any}
  english: {kind: model, model: intent, fallback: {constant: {"label": "?"}}}
  spare: {kind: splitter, weights: {left: 3, right: 1}, sticky: group}
  left: {kind: model, model: intent}
  right: {kind: model, model: intent}
start: all
output: "{language: nodes.language, label: nodes.pick.label}"
"""


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with the models that the graph names."""
    found = Registry(DirectoryStore(tmp_path / "registry"))
    found.create()
    for name in ("lang", "intent"):
        publish(found, tmp_path, name, "1.0")
        found.release(name, "1.0", by="me")
    return found


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "graph.yaml"
    path.write_text(DOCUMENT)
    return path


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, document: Path, registry: Registry) -> Run:
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def leaf(model: str, **more: Any) -> Graph:
    return Graph.model_validate({"start": "n", "nodes": {"n": {"kind": "model", "model": model, **more}}})


def test_a_graph_is_published_with_its_pins_and_stated_answers(registry: Registry, document: Path) -> None:
    """The label to pin became the version of now, others stay, and the same document again is the same version."""
    known = Example({"text": "hi"}, {"language": "en", "label": "greeting"})
    record = publish_graph(document, model_name="route", version="1", registry=registry, label="PROD", examples=[known])
    graph = registry.graph(record)
    assert (record.backend, record.archive.kind) == ("graph", "bundle")
    assert graph.nodes["language"].selector == "1.0"  # type: ignore[union-attr]
    assert graph.nodes["english"].selector == "PROD"  # type: ignore[union-attr]
    golden = golden_of(registry, record)
    assert golden is not None
    assert golden.examples[0].answer.value == known.output
    again = publish_graph(document, model_name="route", version="1", registry=registry, examples=[known])
    assert again == record


def test_a_graph_with_a_mistake_is_refused_with_each_nodes_name(registry: Registry, document: Path) -> None:
    """All that is wrong is said at once, and nothing is stored, whichever way it is published."""
    document.write_text(DOCUMENT.replace("model: lang", "model: nothere").replace("request.text", "nodes.both"))
    with pytest.raises(InvalidGraph) as caught:
        publish_graph(document, model_name="route", version="1", registry=registry)
    assert "node language: there is no model 'nothere'" in caught.value.message
    assert "node german: 'nodes.both' looks at nodes.both, and of both and german only one runs" in caught.value.message
    directory = document.parent / "packed"
    directory.mkdir()
    (directory / "graph.json").write_text(leaf("nothere").model_dump_json(exclude_unset=True))
    bundle = pack_bundle(
        model_name="route", version="1", backend="graph", directory=directory, export_path=document.parent
    )
    with pytest.raises(InvalidGraph, match="node n: there is no model 'nothere'"):
        publish_archive(bundle.path, registry=registry)
    assert registry.versions("route") == ()
    (directory / "more.txt").write_text("x")
    with pytest.raises(InvalidArchive, match=r"more\.txt'?: a graph is its graph\.json alone"):
        pack_bundle(model_name="r", version="1", backend="graph", directory=directory, export_path=document.parent)
    with pytest.raises(InvalidArchive, match=r"there is no graph\.json"):
        pack_bundle(model_name="r", version="1", backend="graph", export_path=document.parent)


def test_a_version_that_a_graph_names_is_not_deleted(registry: Registry, document: Path, tmp_path: Path) -> None:
    """The refusal names the graph; it ends with the graph, and gc then removes what said so."""
    publish_graph(document, model_name="route", version="1", registry=registry)
    publish(registry, tmp_path, "intent", "2.0")
    registry.release("intent", "2.0", by="me")
    with pytest.raises(StateConflict, match=r"intent 1\.0 is named by the graph route 1: publish"):
        registry.delete("intent", "1.0", by="me")
    pin = "pins/intent/1.0/route/1.json"
    registry.store.delete(pin)
    publish_graph(document, model_name="route", version="1", registry=registry)
    assert list(registry.store.keys("pins/intent/")) == [pin]
    assert list(registry.scrub()) == []
    registry.delete("route", "1", by="me")
    registry.delete("intent", "1.0", by="me")
    later = registry.gc(now=utc_now() + timedelta(days=2))
    assert pin in later.swept
    assert not list(registry.store.keys("pins/"))


def test_a_graph_has_no_settings_of_pods(registry: Registry, document: Path) -> None:
    """What would have no effect is refused, when it is published and when it is set."""
    with pytest.raises(InvalidInput, match="'cache' has no effect: route 1 is a graph"):
        publish_graph(document, model_name="route", version="1", registry=registry, record={"serving": {"cache": True}})
    publish_graph(document, model_name="route", version="1", registry=registry)
    for version in ("*", "1"):
        with pytest.raises(InvalidInput, match="'pods' has no effect"):
            registry.set_serving("route", version=version, set_fields={"pods": 2}, by="me")
    registry.set_serving("route", set_fields={"observe": "off"}, by="me")


def test_the_verbs_check_publish_and_show(run: Run, registry: Registry) -> None:
    """Check needs no registry and looks into one when asked; show says which version a label stands for now."""
    assert "9 nodes; intent/1.0, intent/PROD, lang/PROD not looked for" in run("graph", "check", "graph.yaml").stdout
    url = registry.url
    assert "published in" in run("graph", "check", "graph.yaml", "--registry", url, "--model-name", "r").stdout
    Path("bad.json").write_text(leaf("gone").model_dump_json(exclude_unset=True))
    found = run("graph", "check", "bad.json", "--registry", url, "--json")
    assert found.exit_code == 1
    assert json.loads(found.stdout)["problems"][0].startswith("node n: there is no model 'gone'")
    found = run("graph", "publish", "graph.yaml", "--model-name", "route", "-v", "1", "--registry", url)
    assert found.stdout.startswith("published graph route 1 (")
    shown = run("graph", "show", "route/1", "--registry", url).stdout
    assert "language: model lang/1.0, within 0.5 s, 1 retry" in shown
    assert json.loads(run("graph", "show", "graph.yaml", "--json").stdout)["start"] == "all"
    assert run("graph", "draw", "route/1", "--registry", url, "--format", "dot").stdout.startswith("digraph {")
    assert run("graph", "draw", "graph.yaml", "--format", "png").exit_code == 2


def test_a_graph_is_drawn_as_a_tree_and_as_diagrams() -> None:
    graph = Graph.model_validate(yaml.safe_load(DOCUMENT))
    assert draw_graph(graph).splitlines() == [
        "all: sequence",
        "├─ language: model lang/PROD, within 0.5 s, 1 retry",
        "└─ pick: switch",
        "   ├─ when nodes.language == 'de': german: model intent/1.0, given request.text, may fail",
        "   └─ else: both: parallel, any",
        '      ├─ english: model intent/PROD, else {"label": "?"}',
        "      └─ spare: splitter by group",
        "         ├─ 75 %: left: model intent/PROD",
        "         └─ 25 %: right: model intent/PROD",
        "answers {language: nodes.language, label: nodes.pick.label}",
    ]
    mermaid = draw_graph(graph, "mermaid").splitlines()
    assert mermaid[0] == "flowchart TD"
    assert "  pick -->|\"when nodes.language == 'de'\"| german" in mermaid
    assert "  german --> answer_" in mermaid
    assert "  both_joined --> answer_" in mermaid
    assert '  english["english: model intent/PROD, else {#quot;label#quot;: #quot;?#quot;}"]' in mermaid
    dot = draw_graph(graph, "dot").splitlines()
    assert '  spare -> left [label="75 %"];' in dot
    assert "  left -> both_joined;" in dot
