"""Sequences on real pods of both engines, as clients of TorchServe and of the Open Inference Protocol send them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from marway_archiver import publish
from support.cli import marway
from support.torchserve import StockTorchServe, archive
from support.torchserve_client import TorchServeClient, generate
from support.up import Up, wait_until

# tests/sidecar/scheduler/test_sequences.py and tests/gateway/predict/test_sequences.py have all of it on small parts.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]

PAGE = Path(__file__).parents[2] / "docs" / "sequences.md"
HANDLER = Path(__file__).parent / "models" / "adding.py"
CONFIG = """minWorkers: 2
maxWorkers: 2
batchSize: 4
sequenceBatching: true
sequenceMaxIdleMSec: 60000
maxNumSequence: 100
maxSequenceJobQueueSize: 10
mine: 1
"""
ID = "ts_request_sequence_id"
ENGINES = ("torchserve", "native")


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    home = tmp_path_factory.mktemp("sequences")
    (home / "config.yaml").write_text(CONFIG)
    with Up(home / "home", "--pods", "2", "--engine", ", ".join(ENGINES)) as running:
        for engine, version in (*((engine, "1.0") for engine in ENGINES), ("native", "1.1")):
            publish(
                model_name=engine,
                version=version,
                handler=str(HANDLER),
                config_file=str(home / "config.yaml"),
                registry=running.registry,
                record={"serving": {"engine": engine}},
                examples=["1", "22"],
                label="PROD" if version == "1.0" else None,
                force=True,
            )
        yield running


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TorchServeClient:
    return generate(tmp_path_factory.mktemp("client"))


def ask(base: str, model: str, value: object, **headers: str) -> httpx.Response:
    url = f"{base}/predictions/{model}"
    return httpx.post(url, content=str(value).encode(), headers=headers, timeout=60, trust_env=False)


def sums(base: str, model: str) -> list[str]:
    """Send the requests of TorchServe's own test of stateful inference: two sequences at once, five numbers each."""

    def one(number: int) -> list[str]:
        return [ask(base, model, 2 * index + number, **{ID: f"seq_{number}"}).text for index in range(5)]

    with ThreadPoolExecutor(2) as threads:
        return [answer for answers in threads.map(one, range(2)) for answer in answers]


def test_answers_are_those_of_bare_torchserve(up: Up, tmp_path: Path) -> None:
    """Two sequences at once are answered as TorchServe answers them; the handler finds what its archive says."""
    with StockTorchServe(tmp_path, tokens=False) as bare:
        archive(bare.store, "adding", HANDLER.read_text(), config=CONFIG)
        base = bare.addresses
        ready = "?url=adding-1.0.mar&initial_workers=2&synchronous=true"
        httpx.post(f"{base['management']}/models{ready}", timeout=60, trust_env=False).raise_for_status()
        expected = sums(base["inference"], "adding")
        config = ask(base["inference"], "adding", "config").json()
    assert expected == ["0", "2", "6", "12", "20", "1", "4", "9", "16", "25"]
    for engine in ENGINES:
        assert sums(up.ready["gateway"], engine) == expected, engine
        assert ask(up.ready["gateway"], engine, "config").json() == config, engine


def test_the_commands_of_the_page(up: Up) -> None:
    """docs/sequences.md prints what its commands print."""
    (block,) = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    shown = block.replace("http://127.0.0.1:8000", up.ready["gateway"]).replace("/adder", "/native").splitlines()
    assert len(shown) == 4
    for command, answer in zip(shown[::2], shown[1::2], strict=True):
        done = subprocess.run(["bash", "-c", command.removeprefix("$ ")], capture_output=True, text=True, timeout=60)
        assert done.stdout == answer


@pytest.mark.parametrize("engine", ENGINES)
def test_every_surface_goes_on_with_one_state(up: Up, client: TorchServeClient, engine: str) -> None:
    """TorchServe's REST and gRPC and v2 ask for one sequence in turn; an end ends it, and one without id is new."""
    base, name = up.ready["gateway"], f"turns-{engine}"

    def infer(value: str, **parameters: object) -> Any:
        tensor = {"name": "x", "datatype": "BYTES", "shape": [1], "data": [value]}
        document = {"inputs": [tensor], "parameters": {"sequence_id": name, **parameters}}
        answer = httpx.post(f"{base}/v2/models/{engine}/infer", json=document, timeout=60, trust_env=False)
        return answer.json()["outputs"][0]["data"][0] if answer.is_success else answer.status_code

    assert infer("1") == 404
    assert infer("1", sequence_start=True) == "1"
    assert ask(base, engine, 2, **{ID: name}).text == "3"
    with grpc.insecure_channel(up.ready["grpc"]) as channel:
        requests = [client.request(engine, data=str(value).encode()) for value in (3, 4)]
        for request in requests:
            request.sequence_id = name
        answers = list(client.stub(channel).StreamPredictions2(iter(requests), timeout=60))
    assert [(answer.prediction, answer.sequence_id) for answer in answers] == [(b"6", name), (b"10", name)]
    assert infer("5", sequence_end=True) == "15"
    assert infer("1") == 404
    assert [ask(base, engine, "end", **{ID: name}).text, ask(base, engine, 7, **{ID: name}).text] == ["0", "7"]
    alone = ask(base, engine, 1)
    assert ask(base, engine, 1, **{ID: alone.headers[ID]}).text == "2"


@pytest.mark.parametrize("engine", ENGINES)
def test_many_sequences_share_one_worker(up: Up, engine: str) -> None:
    """Eight sequences of ten requests each, all at once: every sum is right, and calls hold rows of several."""
    base = up.ready["gateway"]

    def one(number: int) -> list[httpx.Response]:
        return [ask(base, engine, number, **{ID: f"many-{number}"}) for _ in range(10)]

    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(one, range(8)))
    for number, answers in enumerate(found):
        assert [answer.text for answer in answers] == [str(number * count) for count in range(1, 11)]
    assert len({answer.headers["x-worker"] for answers in found for answer in answers}) == 1
    for number in range(8):
        ask(base, engine, "end", **{ID: f"many-{number}"})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_dies_is_told_once(up: Up, engine: str) -> None:
    """Killed while nobody asks, and by a request: each sequence is told once that its state is gone, then begins."""
    base = up.ready["gateway"]
    begun = [ask(base, engine, 1, **{ID: name}) for name in ("k1", "k2")]
    worker = int(begun[0].headers["x-worker"])
    os.kill(worker, signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{worker}").exists(), timeout_s=10, what="the worker is gone")
    for name in ("k1", "k2"):
        told = ask(base, engine, 1, **{ID: name})
        assert (told.status_code, told.json()["type"]) == (404, "ResourceNotFoundException"), told.text
        assert "begin it anew" in told.json()["message"]
        assert [ask(base, engine, 1, **{ID: name}).text for _ in range(2)] == ["1", "2"]
    died = ask(base, engine, "die", **{ID: "k1"})
    assert (died.status_code, "begin it anew" in died.json()["message"]) == (404, True), died.text
    assert [ask(base, engine, 1, **{ID: name}).status_code for name in ("k1", "k2", "k2")] == [200, 404, 200]


def test_a_sequence_stays_with_its_version(up: Up) -> None:
    """A release moves the label; what has begun goes on where it is, and new sequences begin with the new version."""
    base, engine = up.ready["gateway"], "native"
    assert ask(base, engine, 5, **{ID: "before"}).text == "5"
    released = marway("release", engine, "1.1", "--label", "PROD", MARWAY_GATEWAY_ADMIN_URL=up.ready["admin"])
    assert released.returncode == 0, released.stderr

    def moved() -> bool:
        return ask(base, engine, 1).headers["x-model-version"] == "1.1"

    wait_until(moved, timeout_s=20, what="the gateway follows the label")
    going_on = ask(base, engine, 5, **{ID: "before"})
    assert (going_on.text, going_on.headers["x-model-version"]) == ("10", "1.0")
