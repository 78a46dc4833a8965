"""The same workflows on a bare TorchServe with its workflow routes, and imported as graphs: they answer the same.

The graphs are those of TorchServe's own examples (the dogs' breeds, the two translations), with small handlers of ours
that keep to what the examples do with their inputs: `body` of one node, or a field by each node's name, as bytes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.registry import Registry, open_registry
from marway_archiver.workflows.importing import import_workflow
from support.gateways import GatewayProcess
from support.torchserve import StockTorchServe, archive, pod
from support.up import wait_until
from support.workflows import war

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(300),
    # A bare TorchServe and a pod. What is made of a workflow is held by tests/archiver/workflows, how nodes are given
    # answers by tests/gateway/graph.
    pytest.mark.extended,
]

DOGS = """
import base64


def pre_processing(data, context):
    return data and [base64.b64encode(row.get("data") or row.get("body")).decode() for row in data]
"""
CAT_OR_DOG = """
import base64


def handle(data, context):
    sounds = [base64.b64decode(row.get("data") or row.get("body")) for row in data or []]
    return data and ["dog" if b"woof" in sound else "cat" for sound in sounds]
"""
BREED = """
import base64


def handle(data, context):
    return data and [breed(row) for row in data]


def breed(row):
    if row.get("cat_dog_classification").decode() != "dog":
        return "It's a cat!"
    sound = base64.b64decode(row.get("pre_processing").decode()).decode()
    return {"Beagle": sound.count("woof") / 10, "Boxer": 0.25}
"""
TRANSLATION = """
import json


def pre_processing(data, context):
    if data:
        text = data[0].get("data") or data[0].get("body")
        return [text]
    return None


def aggregate_func(data, context):
    if data:
        german, french = json.loads(data[0].get("nmt_en_de")), json.loads(data[0].get("nmt_en_fr"))
        return [{"input": german["input"], "german": german["output"], "french": french["output"], "n": len(data)}]


def whole(data, context):
    if data is None:
        return None
    (row,) = data
    return [{name: [type(value).__name__, value.hex()] for name, value in row.items()}]


def raw(data, context):
    return data and [b"\\xff\\x00 raw"]


def number(data, context):
    return data and [5]


def boom(data, context):
    if data:
        raise ValueError("on purpose")
"""
TRANSLATOR = """
def handle(data, context):
    return data and [translated(row.get("data") or row.get("body")) for row in data]


def translated(text):
    text = text.decode() if isinstance(text, (bytes, bytearray)) else text
    return {"input": text, "output": f"<LANGUAGE>{text}</LANGUAGE>"}
"""
# TorchServe loses a node's answer that comes before it waits for it, and tries again after the node's time.
SETTINGS = {"min-workers": 1, "max-workers": 1, "batch-size": 4, "retry-attempts": 3, "timeout-ms": 5000}
WORKFLOWS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "dogs": (
        DOGS,
        {"cat_dog_classification": {"url": "cat_dog.mar"}, "dog_breed_classification": {"url": "breed.mar"}},
        {
            "pre_processing": ["cat_dog_classification", "dog_breed_classification"],
            "cat_dog_classification": ["dog_breed_classification"],
        },
    ),
    "dual": (
        TRANSLATION,
        {"nmt_en_de": {"url": "de.mar"}, "nmt_en_fr": {"url": "fr.mar"}},
        {
            "pre_processing": ["nmt_en_de", "nmt_en_fr"],
            "nmt_en_de": ["aggregate_func"],
            "nmt_en_fr": ["aggregate_func"],
        },
    ),
    "leaves": (
        TRANSLATION,
        {"nmt_en_de": {"url": "de.mar"}},
        {"number": ["raw", "nmt_en_de"], "raw": ["whole"]},
    ),
    "fails": (TRANSLATION, {}, {"boom": []}),
}
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("dogs", {"content": b"woof woof", "headers": {"content-type": "application/octet-stream"}}),
    ("dogs", {"content": b"meow\xff", "headers": {"content-type": "application/octet-stream"}}),
    ("dogs", {"files": {"data": b"a woof"}}),
    ("dual", {"content": b"hello", "headers": {"content-type": "text/plain"}}),
    ("dual", {"files": {"data": b"hello"}}),
    ("leaves", {"content": b"{}", "headers": {"content-type": "application/json"}}),
]


@dataclass(frozen=True)
class Both:
    """Where the same workflows are asked."""

    bare: str
    ours: str
    registry: Registry

    def ask(self, workflow: str, **request: Any) -> tuple[httpx.Response, httpx.Response]:
        with httpx.Client(trust_env=False, timeout=90) as client:
            bare, ours = (client.post(f"{url}/wfpredict/{workflow}", **request) for url in (self.bare, self.ours))
        return bare, ours


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    home = tmp_path_factory.mktemp("workflows")
    store, wars = home / "bare" / "store", home / "wars"
    for name, handler in (("cat_dog", CAT_OR_DOG), ("breed", BREED)):
        archive(store, name, handler, file=f"{name}.mar")
    for language in ("de", "fr"):
        archive(store, language, TRANSLATOR.replace("LANGUAGE", language), file=f"{language}.mar")
    registry = open_registry(f"file://{home / 'registry'}")
    registry.create()
    paths: list[Path] = []
    for name, (handler, models, dag) in WORKFLOWS.items():
        paths.append(war(wars, name, {"models": {**SETTINGS, **models}, "dag": dag}, handler))
        import_workflow(paths[-1], registry=registry, model_store=store, label="PROD")
    with contextlib.ExitStack() as stack:
        bare = stack.enter_context(StockTorchServe(home / "bare", tokens=False, workflow_store=wars))
        executor = stack.enter_context(ThreadPoolExecutor())
        registered = executor.map(lambda path: register(bare, path), paths)  # while ours begins
        ours = stack.enter_context(pod(home / "pod", registry.url, engine="native"))
        gateway = stack.enter_context(GatewayProcess(home, registry=registry.url, pods=[f"pod={ours}"]))
        for answer in registered:
            answer.raise_for_status()
        yield Both(bare.addresses["inference"], gateway.url, registry)


def register(bare: StockTorchServe, path: Path) -> httpx.Response:
    url = f"{bare.addresses['management']}/workflows"
    return httpx.post(url, params={"url": path.name}, timeout=200, trust_env=False)


def test_they_answer_the_same(both: Both) -> None:
    """Status, content type and body are TorchServe's, whatever is asked and whatever a node answers the next."""
    for workflow, request in REQUESTS:
        bare, ours = both.ask(workflow, **request)
        assert (bare.status_code, ours.status_code) == (200, 200), (workflow, request, bare.text, ours.text)
        assert what(ours) == what(bare), (workflow, request)


def what(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return answer.content


def test_a_node_that_fails(both: Both) -> None:
    """TorchServe's form of error, which names the node; ours says what it was as well."""
    bare, ours = both.ask("fails", content=b"x", headers={"content-type": "text/plain"})
    assert (ours.status_code, ours.json()["type"]) == (bare.status_code, bare.json()["type"])
    assert bare.json()["message"] == "Error executing boom"
    assert "node boom (fails__boom 1.0)" in ours.json()["message"]
    assert "on purpose" in ours.json()["message"]


def test_what_is_no_workflow(both: Both) -> None:
    """A name that nobody has, and a model's, are workflows that are not found."""
    for name in ("nobody", "breed"):
        bare, ours = both.ask(name, content=b"x")
        assert (ours.status_code, ours.json()["type"]) == (bare.status_code, bare.json()["type"])
        assert ours.json()["type"] == "WorkflowNotFoundException"


def test_a_fallback_over_real_pods(both: Both) -> None:
    """A version that no pod can serve is answered by its fallback; the last test, for it takes `fr` from the others."""
    both.registry.set_serving("fr", version="1.0", set_fields={"engine": "torchserve", "fallback": "de/1.0"}, by="test")

    def answered() -> httpx.Response | None:
        answer = httpx.post(f"{both.ours}/predict/fr/1.0", content=b"hello", timeout=60, trust_env=False)
        return answer if "x-marway-fallback" in answer.headers else None

    wait_until(lambda: answered() is not None, timeout_s=30, what="gateways have read the setting")
    answer = answered()
    assert answer is not None
    assert (answer.status_code, answer.json()["output"]) == (200, "<de>hello</de>")
    assert (answer.headers["x-marway-fallback"], answer.headers["x-model-name"]) == ("de/1.0", "de")
