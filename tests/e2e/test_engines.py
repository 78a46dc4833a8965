"""A mixed cluster: one pod of each engine, the same archives, labels and clients."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway_archiver import publish
from support.cli import marway, refused
from support.trained import TENSOR_MODEL, untrained
from support.up import Up, wait_until

# The contract suite and the differential tests have the native engine in `make test`.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]

VERSIONS = ("intent", "digits", "numbers", "vectors", "streams", "shout")
TEXTS = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 2)

    def encode(self, texts):
        return (torch.tensor([[float(len(text))] for text in texts]),)

    def forward(self, lengths):
        return self.layer(lengths)
"""
SHIPPED: dict[str, tuple[str, str, list[Any], dict[str, Any]]] = {
    "numbers": ("tensor", TENSOR_MODEL, [[1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 1]], {}),
    "vectors": ("embedding", TEXTS, ["wake me up", "play jazz"], {}),
    "streams": ("streaming_text", TEXTS, ["one. And then two."], {"streaming": True}),
}
"""Of each shipped handler that no example has: handler, model, golden inputs, serving settings."""


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("mixed") / "home"
    with Up(home, "--demo", "--pods", "2", "--engine", "torchserve, native") as running:
        for name, (handler, model, examples, serving) in SHIPPED.items():
            files = tmp_path_factory.mktemp(name)
            model_file, weights = untrained(files, model)
            (files / "labels.json").write_text('["short", "long"]')
            found = importlib.util.find_spec(f"marway_handlers.{handler}")
            assert found is not None
            assert found.origin is not None
            publish(
                model_name=name,
                version="1.0",
                handler=found.origin,
                model_file=str(model_file),
                serialized_file=str(weights),
                extra_files=str(files / "labels.json"),
                registry=running.registry,
                examples=examples,
                record={"serving": serving},
                label="PROD",
                force=True,
            )
        shout = Path(__file__).parents[2] / "docs" / "shout.py"
        publish(
            model_name="shout", version="1.0", handler=str(shout), registry=running.registry, examples=["yes", "no"],
            label="PROD", force=True,
        )  # fmt: skip
        yield running


def pods(up: Up) -> dict[str, str]:
    """Return each pod's URL by its engine."""
    urls = [pod["url"] for pod in up.ready["pods"]]
    return {httpx.get(f"{url}/status", trust_env=False).json()["backend"]: url for url in urls}


def test_pods_say_their_engine(mixed: Up) -> None:
    """Status, versions and `marway pods` name the engine; both serve archives for TorchServe."""
    found = pods(mixed)
    assert set(found) == {"torchserve", "native"}
    status = httpx.get(f"{found['native']}/status", trust_env=False).json()
    assert status["serves"] == ["native", "torchserve"]
    assert status["server_version"]
    listed = marway("pods", MARWAY_GATEWAY_ADMIN_URL=mixed.ready["admin"])
    assert listed.returncode == 0, listed.stderr
    assert "native" in listed.stdout
    assert "torchserve" in listed.stdout


@pytest.mark.parametrize("engine", ["torchserve", "native"])
@pytest.mark.parametrize("name", VERSIONS)
def test_golden_answers_are_reproduced_on_both(mixed: Up, name: str, engine: str) -> None:
    """The examples and each shipped handler give on either engine what they gave when they were packed."""
    url = f"{pods(mixed)[engine]}/models/{name}/1.0/load?prove=true"
    report = httpx.post(url, timeout=120, trust_env=False).json()
    assert report["differences"] == []
    assert report["examples"] >= 1
    assert report["server"] == engine


def test_answers_are_the_same_byte_by_byte(mixed: Up) -> None:
    """What a client sends to either pod, and through the gateway, is answered with the same bytes and headers."""
    asked: list[tuple[str, bytes, str]] = [
        ("intent", b"wake me up at six", "text/plain"),
        ("intent", b'{"text": "tell me a joke"}', "application/json"),
        ("numbers", b"[1,2,3,4,5,6]", "application/json"),
        ("numbers", b"[1]", "application/json"),
        ("vectors", b"play jazz", "text/plain"),
        ("streams", b"one. And then two.", "text/plain"),
        ("shout", b"is anybody there?", "text/plain"),
    ]
    for name, body, kind in asked:
        answers = [
            httpx.post(f"{base}/predict/{name}/1.0", content=body, headers={"content-type": kind}, timeout=60)
            for base in (*pods(mixed).values(), mixed.gateway)
        ]
        seen = {(each.status_code, each.content, each.headers.get("content-type")) for each in answers}
        assert len(seen) == 1, (name, seen)


def test_a_worker_that_was_unloaded_comes_back(mixed: Up) -> None:
    """A version is unloaded from a native pod and loaded again by the next request; its log is read as ever."""
    url = pods(mixed)["native"]
    assert httpx.post(f"{url}/models/shout/1.0/unload", timeout=60, trust_env=False).is_success
    answer = httpx.post(
        f"{url}/predict/shout/1.0", content=b"again", headers={"content-type": "text/plain"}, timeout=60
    )
    assert answer.text == "AGAIN"


def test_a_version_that_asks_for_an_engine_goes_to_its_pods(mixed: Up) -> None:
    """A serving setting moves a version to the pods of one engine; where there is none, the answer names it."""
    urls = pods(mixed)

    def change(**change: Any) -> None:
        url = f"{mixed.ready['admin']}/models/shout/serving"
        httpx.patch(url, json=change, timeout=60, trust_env=False).raise_for_status()

    def asked() -> httpx.Response:
        return httpx.post(f"{mixed.gateway}/predict/shout", content=b"again", timeout=60, trust_env=False)

    def state(engine: str) -> str:
        return str(httpx.get(f"{urls[engine]}/models/shout/1.0", trust_env=False).json()["state"])

    try:
        for engine, other in (("native", "torchserve"), ("torchserve", "native")):
            change(set={"engine": engine})
            wait_until(lambda engine=engine: refuses_all_but(urls, engine), timeout_s=30, what="both know it")
            for url in urls.values():
                httpx.post(f"{url}/models/shout/1.0/unload", timeout=60, trust_env=False).raise_for_status()
            assert asked().text == "AGAIN"
            assert state(engine) == "ready"
            assert state(other) == "absent"
        change(set={"engine": "mms"})
        wait_until(lambda: asked().status_code == 503, timeout_s=30, what="the gateway knows it")
        assert "none of the 2 pods runs mms, with archives for torchserve" in asked().json()["detail"]
    finally:
        change(unset=["engine"])


def refuses_all_but(urls: dict[str, str], engine: str) -> bool:
    """Return whether pods know by now which engine is to serve `shout`: the others refuse to load it anew."""
    for name, url in urls.items():
        if name != engine:
            httpx.post(f"{url}/models/shout/1.0/unload", timeout=60, trust_env=False)
            if httpx.post(f"{url}/models/shout/1.0/load", timeout=60, trust_env=False).status_code != 503:
                return False
    return True


def test_engines_that_are_none_are_refused(tmp_path: Path) -> None:
    """A name that is no engine, and more engines than pods, are said in one line before anything starts."""
    for arguments, why in ((("--engine", "tensorflow"), "did you mean 'tensorflow-serving'?"),
                           (("--engine", "torchserve,native"), "--pods 2")):  # fmt: skip
        assert why in refused(marway("up", "--home", str(tmp_path / "home"), *arguments))


def test_what_up_decides_is_refused_in_a_file(tmp_path: Path) -> None:
    """A file's tables say no engine and no backend: `marway up` gives each pod its own."""
    for table, name in (("runtime", "engine"), ("sidecar", "backend")):
        file = tmp_path / "up.toml"
        file.write_text(f'[{table}]\n{name} = "native"\n')
        said = refused(marway("up", "--home", str(tmp_path / "home"), "--config", str(file)))
        assert json.dumps(name)[1:-1] in said
