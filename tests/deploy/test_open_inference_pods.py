"""The overlays `triton` and `mlserver` as processes: their servers' commands, variables and probes, on other ports."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest

from marway_archiver import publish_bundle
from support.cli import marway
from support.kubernetes.objects import Container, container, environment
from support.kubernetes.render import overlay
from support.servers.environments import environment as bin_of
from support.servers.process import free_ports
from support.servers.triton import Triton
from support.torchserve import sidecar
from support.trained import EXAMPLES
from support.up import wait_until

# Extended: test_policies.py has what sidecar and server are told agree; tests/backends serve from the same servers.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]
WEIGHTS = {"triton": "1/weights.npz", "mlserver": "weights.npz"}


@dataclass
class Pod:
    """A pod of an overlay, with what stands in for its volumes."""

    name: str
    process: subprocess.Popen[bytes]
    url: str
    moved: Mapping[str, str]

    def here(self, text: str) -> str:
        """Return a text of the manifests with this run's ports and paths."""
        return re.sub("|".join(map(re.escape, self.moved)), lambda found: self.moved[found[0]], text)


def program_of(server: Container, pod: Pod, home: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command of a container as it is run here, where its image is an environment of packages."""
    words = [pod.here(word) for word in (*server.spec["command"], *server.spec["args"])]
    if pod.name == "mlserver":
        return [str(bin_of("mlserver") / words[0]), *words[1:]], {}
    packed = Triton(home, "explicit", ())
    program, *arguments = packed.command()
    where = [word for word in arguments if word.startswith(("--backend-directory=", "--backend-config="))]
    return [program, *words[1:], *where], dict(packed.variables())


@pytest.fixture(scope="module", params=WEIGHTS)
def pod(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """A server as its overlay has it and a sidecar beside it, in the directories that stand for volumes."""
    documents = overlay(request.param)
    server = container(documents, request.param)
    home = tmp_path_factory.mktemp(request.param)
    volumes = {name: home / name for name in ("models", "store", "tmp")}
    for directory in volumes.values():
        directory.mkdir()
    said = " ".join([*server.spec["args"], *environment(documents, server).values()])
    ports = sorted(set(re.findall(r"\b80[0-9][0-9]\b", said)))
    moved = dict(zip(ports, map(str, free_ports(len(ports))), strict=True))
    moved |= {
        "/var/lib/marway/models": str(volumes["models"]), "/var/lib/marway/store": str(volumes["store"]),
        "/tmp": str(volumes["tmp"]),
    }  # fmt: skip
    running = Pod(request.param, process=None, url="", moved=moved)  # type: ignore[arg-type]
    command, more = program_of(server, running, volumes["tmp"])
    given = {name: running.here(value) for name, value in environment(documents, server).items()}
    with (home / "output.log").open("wb") as output:
        running.process = subprocess.Popen(
            command, cwd=volumes["tmp"], env={**os.environ, **given, **more}, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
    try:
        told = environment(documents, container(documents, "sidecar"))
        settings = {
            name.removeprefix("MARWAY_SIDECAR_").lower(): running.here(value)
            for name, value in told.items()
            if name.startswith("MARWAY_SIDECAR_")
        }
        registry = (home / "registry").as_uri()
        published(request.param, home / "model", registry)
        with sidecar(home, registry, "--archive-store", str(volumes["store"]), **settings) as url:
            running.url = url
            yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.process.pid, signal.SIGKILL)
        running.process.wait(30)


def published(name: str, directory: Path, registry: str) -> None:
    """Publish the model of an example, with weights that answer each picture with the sum of what they are."""
    shutil.copytree(EXAMPLES / name / "model", directory)
    weights = np.zeros((64, 10), np.float32)
    weights[:10, :10] = np.eye(10, dtype=np.float32)
    np.savez(directory / WEIGHTS[name], weights=weights, bias=np.zeros(10, np.float32))
    publish_bundle(
        model_name="digits", version="1.0", backend="open-inference", directory=directory, registry=registry,
        label="PROD", create_registry=True, force=True,
    )  # fmt: skip


def test_it_answers_a_prediction(pod: Pod) -> None:
    """The server loads what the sidecar unpacked for it, and answers through it."""
    pixels = [[0.0] * 7 + [1.0] + [0.0] * 56]
    answer = httpx.post(f"{pod.url}/predict/digits", json={"pixels": pixels}, timeout=90, trust_env=False)
    assert answer.status_code == 200, answer.text
    assert answer.json()["digit"] in ([[7]], [7])
    said = httpx.get(f"{pod.url}/status", timeout=10, trust_env=False).json()
    assert (said["ready"], said["backend"]) == (True, "open-inference")
    assert said["server_version"].startswith(pod.name)


def test_doctor_finds_nothing_wrong(pod: Pod, tmp_path: Path) -> None:
    """`marway doctor` finds the server and its version well, while the sidecar has a version loaded, which it keeps."""
    told = environment(overlay(pod.name), container(overlay(pod.name), "sidecar"))
    env = {name: pod.here(value) for name, value in told.items() if "OPEN_INFERENCE" in name}
    done = marway("doctor", "--port", "0", "--engine", "open-inference", "--json", cwd=tmp_path, **env)
    found = [each for each in json.loads(done.stdout) if each["check"] == "open-inference"]
    assert [each["level"] for each in found] == ["ok"], found
    assert f"{pod.name} " in found[0]["found"]
    wrong = marway(
        "doctor", "--port", "0", "--engine", "open-inference", "--json", cwd=tmp_path,
        **env | {"MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY": str(tmp_path)},
    )  # fmt: skip
    assert "is not what the server reads: it has" in wrong.stdout
    assert httpx.get(f"{pod.url}/models", timeout=10, trust_env=False).json()[0]["state"] == "ready"


def test_its_probe_tells_one_that_answers_from_none(pod: Pod) -> None:
    """The liveness probe passes while the server answers, and fails when it does not."""
    command = container(overlay(pod.name), pod.name).spec["livenessProbe"]["exec"]["command"]
    assert command[1] == "-Ic"
    probe = [sys.executable, "-Ic", pod.here(command[2])]
    assert subprocess.run(probe, capture_output=True, timeout=60).returncode == 0
    os.killpg(pod.process.pid, signal.SIGKILL)
    wait_until(
        lambda: subprocess.run(probe, capture_output=True, timeout=60).returncode != 0, timeout_s=30, what="it fails"
    )
