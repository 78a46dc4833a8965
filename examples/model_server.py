"""What the examples of other model servers share: a model that is trained in a second, and the way of a release."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

MARWAY = (sys.executable, "-m", "marway")
MODEL = "digits"
VERSIONS = {"1.0": 60, "2.0": 1500}
"""Each version, and on how many pictures it is trained: the second one knows better."""
HELD_OUT = 200
GOLDEN = 3
"""Of these, golden examples: a pod has to answer them as the training did, before a version is released."""
STOP_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 180
_LABEL_S = 2.5
"""A gateway follows a label within two seconds."""


@dataclass(frozen=True)
class ServerPlan:
    """A server that is to be: the command that starts it, where it then answers, and where it looks for models."""

    command: Sequence[str]
    url: str
    grpc: str
    repository: Path


@dataclass(frozen=True)
class Example:
    """A model server, and its model.

    Attributes:
        title: What it is called.
        model: The directory of the model as the server reads it, without weights.
        weights: Where they belong in it.
        plan: Returns how the server is started, given the directory that it is started in.
    """

    title: str
    model: Path
    weights: str
    plan: Callable[[Path], ServerPlan]


def train(pictures: int, file: Path, examples: Path) -> float:
    """Train a classifier of digits in NumPy alone.

    Args:
        pictures: How many it is trained on.
        file: Where its weights go.
        examples: Where golden examples go, as `marway pack --examples` takes them: inputs, and what it answers.

    Returns:
        Which share of other pictures it gets right.
    """
    found = load_digits()
    pixels, digits = (found.data / 16).astype(np.float32), found.target
    model = LogisticRegression(max_iter=500).fit(pixels[:pictures], digits[:pictures])
    weights, bias = model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)
    np.savez(file, weights=weights, bias=bias)
    held_out = pixels[-HELD_OUT:]
    exponents = np.exp(held_out @ weights + bias)
    probabilities = exponents / exponents.sum(axis=1, keepdims=True)
    guessed = probabilities.argmax(axis=1)
    with examples.open("w") as lines:
        for number in range(GOLDEN):
            output = {"digit": [[int(guessed[number])]], "probabilities": [probabilities[number].tolist()]}
            example = {"input": {"pixels": [held_out[number].tolist()]}, "output": output}
            lines.write(f"{json.dumps(example)}\n")
    return float((guessed == digits[-HELD_OUT:]).mean())


def picture(number: int) -> tuple[list[float], int]:
    """Return the pixels of a picture that no version was trained on, and the digit that is on it."""
    found = load_digits()
    return [round(float(pixel) / 16, 4) for pixel in found.data[-number]], int(found.target[-number])


def run(example: Example) -> int:
    """Serve a model from a server of another maker: two versions, a roll-back; then stop everything.

    Everything is in a temporary directory and on free ports. Returns the exit status.
    """
    with tempfile.TemporaryDirectory(prefix="marway-example-") as directory:
        home = Path(directory)
        plan = example.plan(home)
        plan.repository.mkdir(exist_ok=True)
        (home / "marway.toml").write_text(_settings(plan))
        print(f"{example.title}, a pod beside it, and a gateway", flush=True)
        _show("up", "--config", "marway.toml")
        command = [*MARWAY, "up", "--json", "--port", "0", "--home", str(home), "--config", "marway.toml"]
        # The server may keep packages of its own in the home, which are not Marway's.
        safe = {**os.environ, "PYTHONSAFEPATH": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=home, env=safe) as up:
            try:
                ready = _until_ready(up)
                if ready is None:
                    return up.wait() or 1
                _release_and_go_back(example, home, ready)
            finally:
                stopping = time.monotonic()
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=STOP_TIMEOUT_S)
        print(f"stopped in {time.monotonic() - stopping:.1f} s with exit status {up.returncode}")
        return up.returncode


def _settings(plan: ServerPlan) -> str:
    """Return the file for `marway up`: one pod, the command of its server, and where its sidecar finds that."""
    return f"""[up]
engine = "open-inference"
[up.servers]
pod-0 = {json.dumps(shlex.join(plan.command))}
[sidecar]
open_inference_url = "{plan.url}"
open_inference_grpc = "{plan.grpc}"
open_inference_repository = {json.dumps(str(plan.repository))}
"""


def _release_and_go_back(example: Example, home: Path, ready: dict[str, Any]) -> None:
    gateway = str(ready["gateway"])
    told = {
        "MARWAY_REGISTRY": str(ready["registry"]),
        "MARWAY_GATEWAY_ADMIN_URL": str(ready["admin"]),
        "MARWAY_GATEWAY_URL": gateway,
    }
    for version, pictures in VERSIONS.items():
        directory = home / f"{MODEL}-{version}"
        shutil.copytree(example.model, directory)
        share = train(pictures, directory / example.weights, home / "examples.jsonl")
        print(f"\n{MODEL} {version}, trained on {pictures} pictures: {share:.0%} of others right", flush=True)
        _marway(
            home, told, "pack", "--backend", "open-inference", "--directory", directory.name, "--model-name", MODEL,
            "--version", version, "--examples", "examples.jsonl", "--force",
        )  # fmt: skip
        _marway(home, told, "publish", f"{MODEL}.bundle")
        _marway(home, told, "release", MODEL, version)
        _ask(gateway, version)
    print("\nback to the first one", flush=True)
    _marway(home, told, "rollback", MODEL)
    _ask(gateway, next(iter(VERSIONS)))
    _marway(home, told, "pods")


def _ask(gateway: str, version: str) -> None:
    """Ask in both ways, once the label has moved: the Open Inference protocol, and Marway's own route."""
    pixels, digit = picture(7)
    tensor = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": pixels}
    url = f"{gateway}/v2/models/{MODEL}/infer"
    until = time.monotonic() + _LABEL_S
    with httpx.Client(timeout=120, trust_env=False) as client:
        while True:
            answer = client.post(url, json={"inputs": [tensor]})
            answer.raise_for_status()
            if answer.json()["model_version"] == version or time.monotonic() > until:
                break
            time.sleep(0.1)
        found = {each["name"]: each["data"] for each in answer.json()["outputs"]}
        assert answer.json()["model_version"] == version
        print(f"POST /v2/models/{MODEL}/infer → version {version}: {_shown(found)} (it is a {digit})")
        answer = client.post(f"{gateway}/predict/{MODEL}/PROD", json={"pixels": [pixels]})
        answer.raise_for_status()
        print(f"POST /predict/{MODEL}/PROD → version {answer.headers['x-model-version']}: {_shown(answer.json())}")


def _shown(answer: dict[str, Any]) -> str:
    digit = np.asarray(answer["digit"]).ravel()[0]
    probability = np.asarray(answer["probabilities"]).ravel().max()
    return f"{digit}, with probability {probability:.2f}"


def _marway(home: Path, told: dict[str, str], *words: str) -> None:
    """Run a verb as a person would, and show it with what it prints."""
    _show(*words)
    done = subprocess.run(
        [*MARWAY, *words], cwd=home, env={**os.environ, "PYTHONSAFEPATH": "1", **told}, capture_output=True, text=True,
        timeout=COMMAND_TIMEOUT_S, check=False,
    )  # fmt: skip
    for line in (done.stdout + done.stderr).splitlines():
        print(f"  {line}", flush=True)
    if done.returncode:
        sys.exit(f"marway {words[0]} ended with status {done.returncode}")


def _show(*words: str) -> None:
    print(f"$ marway {shlex.join(words)}", flush=True)


def _until_ready(up: subprocess.Popen[str]) -> dict[str, Any] | None:
    """Show what `marway up` does until it is ready, and return what it then says; None if it ended instead."""
    assert up.stdout is not None
    for line in up.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "step":
            print(f"  {event['seconds'] or 0:5.1f} s  {event['name']}", flush=True)
        elif event["event"] == "warning":
            print(f"  {event['message']}", flush=True)
        elif event["event"] == "ready":
            return event
    return None


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has."""
    with ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]
