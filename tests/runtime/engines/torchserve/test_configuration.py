"""The configuration that TorchServe is started with is safe and quiet."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from marway_runtime.engines.torchserve.configuration import (
    Ports,
    command_line,
    path_for_workers,
    properties,
    write_worker_launcher,
)
from marway_runtime.settings import RuntimeSettings
from support.runtime import Runtime

PORTS = Ports(1, 2, 3, 4, 5)


@pytest.fixture
def settings(tmp_path: Path) -> RuntimeSettings:
    return RuntimeSettings(flags={"runtime_dir": tmp_path / "run", "model_store": tmp_path / "store"})  # type: ignore[call-arg]


def parsed(settings: RuntimeSettings) -> dict[str, str]:
    return dict(line.split("=", 1) for line in properties(settings, PORTS).splitlines())


def test_everything_listens_on_loopback(settings: RuntimeSettings) -> None:
    """Each of the five addresses is 127.0.0.1, with its own port."""
    values = parsed(settings)
    assert [values[f"{kind}_address"] for kind in ("inference", "management", "metrics")] == [
        "http://127.0.0.1:1",
        "http://127.0.0.1:2",
        "http://127.0.0.1:3",
    ]
    assert values["grpc_inference_address"] == values["grpc_management_address"] == "127.0.0.1"
    assert (values["grpc_inference_port"], values["grpc_management_port"]) == ("4", "5")


def test_nothing_is_fetched_or_installed(settings: RuntimeSettings) -> None:
    """No URL may be registered, nothing is loaded at start, and pip is not run."""
    values = parsed(settings)
    assert values["allowed_urls"] == "(?!)"
    assert "load_models" not in values
    assert values["install_py_dep_per_model"] == "false"


def test_the_working_directory_is_not_on_the_class_path(settings: RuntimeSettings, tmp_path: Path) -> None:
    """The class path is TorchServe's own jars alone, and the home is on the command line."""
    command = command_line(
        settings, home=tmp_path, worker=tmp_path / "w", temporary=tmp_path / "t", config=tmp_path / "c"
    )
    class_path = command[command.index("-cp") + 1]
    assert [Path(jar).name for jar in class_path.split(":")] == ["model-server.jar"]
    assert all(Path(jar).is_file() for jar in class_path.split(":"))
    assert f"-Dmarway.home={tmp_path}" in command
    assert f"-Djava.io.tmpdir={tmp_path / 't'}" in command
    assert "-ncs" in command


def test_own_options_of_java_come_last(tmp_path: Path) -> None:
    """Options of the settings stand after Marway's own, where Java lets them win, and before the class."""
    settings = RuntimeSettings(flags={"java_options": ("-Xmx99m",)})  # type: ignore[call-arg]
    command = command_line(
        settings, home=tmp_path, worker=tmp_path, temporary=tmp_path, config=tmp_path, more_options=["-Xshare:auto"]
    )
    heaps = [word for word in command[: command.index("-cp")] if word.startswith("-Xmx")]
    assert len(heaps) == 2
    assert heaps[-1] == "-Xmx99m"
    assert command[command.index("-Xmx99m") - 1] == "-Xshare:auto"


@pytest.mark.e2e
@pytest.mark.extended  # the tests above have the settings that make it so
def test_java_starts_no_thread_for_a_request(tmp_path: Path, archives: Path) -> None:
    """On two processors 100 predictions do not make 100 threads, as they do in TorchServe alone."""
    log = tmp_path / "threads.log"
    options = f'["-XX:ActiveProcessorCount=2", "-Xlog:os+thread:file={log}"]'
    with Runtime(tmp_path / "home", archives, {"MARWAY_RUNTIME_JAVA_OPTIONS": options}) as runtime:
        runtime.register("model")
        before = log.read_text().count("is alive")
        for _ in range(100):
            assert runtime.ask("model")
        after = log.read_text().count("is alive")
    assert before > 10
    assert after - before < 50


@pytest.mark.parametrize("forked", [True, False])
def test_the_worker_launcher_takes_any_path(tmp_path: Path, forked: bool) -> None:
    """A home with blanks and quotes in its name is passed on as one word, to the shim and to a plain worker."""
    home = tmp_path / "it's a home"
    launcher = tmp_path / "worker"
    write_worker_launcher(launcher, home=home, fork_socket=tmp_path / "fork.sock" if forked else None)
    shebang, *_, command = launcher.read_text().strip().split("\n")
    assert shebang == "#!/bin/sh"
    words = shlex.split(command)
    assert words[:2] == ["exec", sys.executable]
    assert str(home) in words
    assert (str(tmp_path / "fork.sock") in words) == forked
    assert words[-2:] == ["--", "$@"]
    assert launcher.stat().st_mode & 0o100


@pytest.mark.parametrize("name", ["worker", "worker-bin/python3"])
def test_the_worker_launcher_is_python_for_what_is_no_worker(tmp_path: Path, name: str) -> None:
    """TorchServe calls it for `-m pip` and `-m venv` too, also as `python3`; both names find the usual PATH."""
    home = tmp_path / "it's a home"
    home.mkdir()
    write_worker_launcher(home / "worker", home=home, fork_socket=home / "fork.sock")
    path = path_for_workers(home / "worker")
    assert path.partition(":")[0] == str(home / "worker-bin")
    said = subprocess.run(
        [home / name, "-c", "import os, sys; print(sys.executable, os.environ['PATH'], sys.argv[1:])", "a b"],
        env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert said.stdout.strip() == f"{sys.executable} {os.environ['PATH']} ['a b']"
