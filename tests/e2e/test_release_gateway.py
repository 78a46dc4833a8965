"""Releases through the admin plane over real TorchServe: proofs, refusals, drains and deletions, by the command."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.objects import open_store
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver import publish
from support.cli import marway, refused
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

HANDLER = """
import json

def handle(data, context):
    if data is None:
        return None
    return [{"words": len(bytes(row["data"]).split())SUFFIX} for row in data]
"""
DELETED_WITHIN_S = 2.0
"""What is promised: how old a state may be anywhere."""


@pytest.fixture(scope="module")
def registry(up: Up) -> Registry:
    return Registry(open_store(up.registry))


@pytest.fixture
def command(up: Up) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The `marway` command, with the admin port of the running gateway in its environment."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return marway(*arguments, MARWAY_GATEWAY_ADMIN_URL=up.ready["admin"])

    return run


def printed(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def published(up: Up, scratch: Path, name: str, version: str, *, suffix: str = "", **more: Any) -> VersionRecord:
    """Publish a version that counts words and has golden examples."""
    scratch.mkdir(exist_ok=True)
    handler = scratch / "count_words.py"
    handler.write_text(HANDLER.replace("SUFFIX", suffix))
    return publish(
        model_name=name,
        version=version,
        handler=str(handler),
        registry=up.registry,
        examples=[b"one", b"one two three"],
        **more,
    )


def test_the_examples_of_the_demo_are_proved(up: Up, registry: Registry) -> None:
    """What `marway up --demo` labels was proved by one of its pods; nothing was forced."""
    pods = {f"pod {pod['name']}" for pod in up.ready["pods"]}
    for name in ("intent", "digits"):
        first = min(registry.state(name).history, key=lambda entry: entry.generation)
        assert (first.label, first.to_version, first.forced) == ("PROD", "1.0", False)
        record = registry.record(name, "1.0")
        assert registry.is_proved(record)
        assert {proof.by for proof in registry.proofs(record.archive.sha256) if proof.kind == "pod"} <= pods


def test_a_release_writes_a_proof_and_moves_the_label(
    up: Up, registry: Registry, client: httpx.Client, command: Callable[..., Any], tmp_path: Path
) -> None:
    """`marway release` has a pod load the version and reproduce its golden answers; then every request gets it."""
    record = published(up, tmp_path, "released", "1.0")
    without = refused(marway("release", "released", "1.0", "--registry", up.registry))
    assert "--gateway" in without
    assert "--force" in without
    entry = printed(command("release", "released", "1.0", "--note", "first", "--json"))
    assert (entry["kind"], entry["to"], entry["forced"], entry["note"]) == ("label", "1.0", False, "first")
    (proof,) = [proof for proof in registry.proofs(record.archive.sha256) if proof.kind == "pod"]
    assert proof.golden_sha256 == record.golden_sha256
    assert proof.server_versions["torchserve"].startswith("0.12")
    answer = client.post("/predict/released", content=b"one two")
    assert (answer.status_code, answer.json()) == (200, {"words": 2})
    where = printed(command("pods", "released", "--json"))
    assert [pod["model"]["state"] for pod in where["pods"] if pod["model"]][:1] == ["ready"]
    # Proved once, it can be released without a gateway as well.
    assert printed(marway("release", "released", "1.0", "--label", "STG", "--registry", up.registry, "--json"))


def test_a_version_that_answers_otherwise_is_refused(
    up: Up, registry: Registry, client: httpx.Client, command: Callable[..., Any], tmp_path: Path
) -> None:
    """A version whose golden answers a pod does not reproduce is not released; the difference is shown."""
    published(up, tmp_path / "one", "differing", "1.0", label="PROD", gateway=up.ready["admin"])
    # What it answers depends on a file that is there when it is packed and published, and not when a pod loads it.
    beside = tmp_path / "vocabulary"
    beside.write_text("one")
    counts = f', "known": int(row["data"] != b"one" and __import__("os").path.exists({str(beside)!r}))'
    published(up, tmp_path / "two", "differing", "2.0", suffix=counts)
    beside.unlink()
    said = refused(command("release", "differing", "2.0"))
    assert "differing 2.0 gave 1 of its 2 golden answers otherwise on pod " in said
    assert "example 2: at known: 1 was expected, 0 came" in said
    assert said.endswith("PROD stays at 1.0")
    assert registry.state("differing").labels == {"PROD": "1.0"}
    assert not registry.is_proved(registry.record("differing", "2.0"))
    assert client.post("/predict/differing", content=b"one").headers["x-model-version"] == "1.0"
    assert printed(command("release", "differing", "2.0", "--force", "--json"))["forced"] is True
    wait_until(
        lambda: client.post("/predict/differing", content=b"one").headers["x-model-version"] == "2.0",
        timeout_s=5,
        what="the forced release is served",
    )
    assert printed(command("rollback", "differing", "--json"))["to"] == "1.0"


def test_a_broken_version_is_refused(registry: Registry, command: Callable[..., Any], up: Up) -> None:
    """A version that cannot be loaded is not released, and the reason is the handler's own."""
    said = refused(command("release", "broken", "1.0", "--label", "STG"))
    assert "weights that nobody packed" in said
    assert said.endswith("STG is not set")
    assert "STG" not in registry.state("broken").labels


def test_a_pod_is_drained_and_taken_back_under_load(up: Up, client: httpx.Client, command: Callable[..., Any]) -> None:
    """`marway drain` empties a pod while clients go on, and --undo brings it back; no request fails."""
    (home, *_) = [pod["pod"] for pod in printed(command("pods", "intent", "--json"))["pods"]]
    stop = threading.Event()
    answered: list[str] = []

    def ask() -> None:
        with httpx.Client(base_url=up.gateway, timeout=60, trust_env=False) as own:
            while not stop.is_set():
                answer = own.post("/predict/intent", content=b"tell me a joke")
                assert answer.status_code == 200, answer.text
                answered.append(answer.json()["label"])

    def served(pod: str) -> float:
        url = next(each["url"] for each in up.ready["pods"] if each["name"] == pod)
        lines = httpx.get(f"{url}/status", trust_env=False).json()["models"]
        (found,) = [model for model in lines if model["name"] == "intent"]
        return float(found["last_used_at"] is not None and parsed(found["last_used_at"]))

    with ThreadPoolExecutor(2) as threads:
        clients = [threads.submit(ask) for _ in range(2)]
        try:
            wait_until(lambda: len(answered) > 20, timeout_s=60, what="load")
            drained = printed(command("drain", home, "--json"))
            assert (drained["name"], drained["eligible"]) == (home, False)
            stopped_at = served(home)
            count = len(answered)
            wait_until(lambda: len(answered) > count + 20, timeout_s=60, what="load on the other pod")
            assert served(home) == stopped_at
            assert printed(command("drain", home, "--undo", "--json"))["eligible"] is True
            wait_until(lambda: served(home) > stopped_at, timeout_s=30, what="requests come back")
        finally:
            stop.set()
            command("drain", home, "--undo")
        for each in clients:
            each.result(60)
    assert set(answered) == {"tell_joke"}


def parsed(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def test_a_deleted_version_is_refused_everywhere(
    up: Up, registry: Registry, client: httpx.Client, command: Callable[..., Any], tmp_path: Path
) -> None:
    """Within 2 seconds of `marway delete` the gateway and both pods refuse the version that they had loaded."""
    published(up, tmp_path, "doomed", "1.0", label="PROD", gateway=up.ready["admin"])
    published(up, tmp_path, "doomed", "1.1", suffix=', "v": 1')
    urls = [up.gateway, *(pod["url"] for pod in up.ready["pods"])]

    def statuses() -> set[int]:
        return {
            httpx.post(f"{url}/predict/doomed/1.1", content=b"one", trust_env=False, timeout=60).status_code
            for url in urls
        }

    assert statuses() == {200}
    assert "is PROD: move the label" in refused(command("delete", "doomed", "1.0"))
    assert printed(command("delete", "doomed", "1.1", "--json"))["kind"] == "tombstone"
    deleted = time.monotonic()
    wait_until(lambda: statuses() == {404}, timeout_s=10, what="refused by the gateway and both pods")
    took_s = time.monotonic() - deleted
    assert took_s < DELETED_WITHIN_S + 1.0  # the look itself takes time on a busy machine
    assert client.post("/predict/doomed", content=b"one").status_code == 200
    print(f"refused everywhere {took_s:.1f} s after the command had ended")


def test_load_pin_and_unload(up: Up, registry: Registry, command: Callable[..., Any], tmp_path: Path) -> None:
    """A version is loaded on a named pod with proof, pinned, unpinned and unloaded again."""
    record = published(up, tmp_path, "ahead", "1.0", label="PROD")
    pod = up.ready["pods"][1]["name"]

    def state() -> str:
        found = printed(command("pods", "ahead/1.0", "--json"))["pods"]
        return str(next((each["model"] or {"state": "none"})["state"] for each in found if each["pod"] == pod))

    loaded = printed(command("load", "ahead", "--pod", pod, "--prove", "--json"))
    assert [(each["pod"], each["proved"], each["report"]["examples"]) for each in loaded["loads"]] == [(pod, True, 2)]
    assert registry.is_proved(record)
    wait_until(lambda: state() == "ready", timeout_s=10, what="the gateway heard of it")
    assert command("pin", "ahead").stdout == "ahead 1.0 is pinned\n"
    assert registry.state("ahead").serving["1.0"].pinned is True
    assert command("pin", "ahead", "--off").returncode == 0
    unloaded = printed(command("unload", "ahead", "--json"))
    assert unloaded["pods"][pod]["state"] == "absent"
    wait_until(lambda: state() in ("absent", "none"), timeout_s=10, what="the gateway heard of it")
