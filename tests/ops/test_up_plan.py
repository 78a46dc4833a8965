"""Which pods `marway up` plans, for every backend that is installed, and what it says before anything starts."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import psutil
import pytest

from marway.errors import InvalidSettings
from marway.process.children import Lifeline
from marway.settings import load_settings
from marway_ops.up.plan import check_packages, idle_variables, named_engines, plan_pods
from marway_ops.up.process import Child
from marway_ops.up.settings import check_parts
from marway_sidecar.settings import SidecarSettings
from support.up import Up, processes_of, wait_until

TOY = Path(__file__).parents[1] / "sidecar" / "backends" / "toy"
ADDRESSES = "".join(
    f'torchserve_{name} = "{address}"\n'
    for name, address in (
        ("inference", "http://127.0.0.1:8080"),
        ("management", "http://127.0.0.1:8081"),
        ("grpc_inference", "127.0.0.1:7070"),
        ("grpc_management", "127.0.0.1:7071"),
    )
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "marway.toml"


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backend `toy` is installed."""
    monkeypatch.syspath_prepend(TOY)


def test_a_runtime_is_for_the_engines_that_it_starts() -> None:
    """The backend says whether Marway's runtime starts its server; only then torch has to be there."""
    pods = plan_pods(named_engines("torchserve, native,toy"))
    assert [(pod.name, pod.engine, pod.by_runtime) for pod in pods] == [
        ("pod-0", "torchserve", True),
        ("pod-1", "native", True),
        ("pod-2", "toy", False),
    ]
    check_packages(pods)


def test_an_engine_that_is_not_installed_is_named_with_those_that_are() -> None:
    """A slip in a name is told with what was meant."""
    with pytest.raises(InvalidSettings, match=r"engine says 'natve': installed are .*toy; did you mean 'native'"):
        named_engines("toy,natve")


def test_a_torchserve_of_ones_own_gets_no_runtime(file: Path) -> None:
    """Two pods of one backend differ by a table each; the one with addresses gets no runtime."""
    file.write_text(f"[up]\npods = 2\n[pods.pod-1]\n{ADDRESSES}")
    pods = plan_pods(["torchserve", "torchserve"], config=file)
    assert [pod.by_runtime for pod in pods] == [True, False]
    assert load_settings(SidecarSettings, config=file, name="pod-0").torchserve_management is None
    assert load_settings(SidecarSettings, config=file, name="pod-1").torchserve_management == "http://127.0.0.1:8081"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[pods.pod-1]\ntorchserve_inference = 'http://127.0.0.1:1'", "pod-1: a TorchServe of your own needs all four"),
        ("[pods.pod-7]\nqueue_limit = 3", r"\[pods\] names pod-7: the pods are pod-0, pod-1"),
        ("[pods.pod-1]\nqueu_limit = 3", "setting 'queu_limit'.*did you mean 'queue_limit'"),
        ("[pods]\npod-1 = 3", r"pods.pod-1 is not a table: write \[pods.pod-1\]"),
        ("[pods.pod-1]\nport = 3", r"\[pods.pod-1\] sets port, which `marway up` decides"),
        ("[sidecar]\ntorchserve_probe_timeout_s = 3", r"pod-0: the backend toy has no use for .*\[pods.pod-0\] in"),
    ],
)
def test_a_pod_that_could_not_begin_is_told_before(file: Path, text: str, says: str) -> None:
    """What a pod lacks, or what has no effect, is one sentence that names the pod or the table."""
    file.write_text(f"[up]\n{text}\n")

    def checked() -> None:
        list(check_parts(file, {}))
        plan_pods(["toy", "torchserve"], config=file)

    with pytest.raises(InvalidSettings, match=says):
        checked()


def test_a_variable_is_for_the_pods_of_its_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not reach pods of another backend, which would refuse it; where no pod has its backend it is named."""
    monkeypatch.setenv("MARWAY_SIDECAR_TORCHSERVE_PROBE_TIMEOUT_S", "3")
    pods = plan_pods(["toy", "torchserve"])
    assert [dict(pod.environment) for pod in pods] == [{"MARWAY_SIDECAR_TORCHSERVE_PROBE_TIMEOUT_S": None}, {}]
    assert list(idle_variables(os.environ, ["toy", "torchserve"])) == []
    assert list(idle_variables(os.environ, ["toy"])) == [
        "the variable MARWAY_SIDECAR_TORCHSERVE_PROBE_TIMEOUT_S has no effect: no pod has the engine torchserve"
    ]


@pytest.mark.parametrize(
    ("servers", "says"),
    [
        ({"pod-1": "true"}, "servers has a command for pod-1, whose server is started by Marway's runtime"),
        ({"pod-2": "true"}, "servers names pod-2: the pods are pod-0, pod-1"),
        ({"pod-0": "no-such-program --x"}, "pod-0's server cannot be started: there is no program 'no-such-program'"),
        ({"pod-0": "'open"}, "cannot be read: No closing quotation"),
        ({"pod-0": ""}, "an empty command"),
    ],
)
def test_a_server_that_cannot_be_started_is_told_before(servers: dict[str, str], says: str) -> None:
    """A command that has no effect or no program is refused by name."""
    with pytest.raises(InvalidSettings, match=says):
        plan_pods(["toy", "native"], servers=servers)


async def test_what_a_server_started_ends_with_it(tmp_path: Path) -> None:
    """A server that is not Marway's may leave processes behind that hold its ports: they are ended."""
    sleeper = "import time; time.sleep(60)"
    script = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {sleeper!r}]).pid, flush=True)"
    words = (sys.executable, "-c", f"{script}; {sleeper}")
    lifeline = Lifeline()
    child = Child("server", words, tmp_path / "log", lifeline, 5.0, {"HOME": None}, ours=False)
    await child.start()
    try:
        while not (said := (tmp_path / "log").read_text().strip()):
            await asyncio.sleep(0.01)
        assert child.pid is not None
        psutil.Process(child.pid).kill()
        await child.wait()
        psutil.wait_procs([psutil.Process(int(said))], timeout=5) if psutil.pid_exists(int(said)) else None
        assert not psutil.pid_exists(int(said)) or psutil.Process(int(said)).status() == psutil.STATUS_ZOMBIE
    finally:
        await child.stop()
        lifeline.close()


@pytest.mark.e2e
def test_up_keeps_a_server_beside_its_pod(tmp_path: Path) -> None:
    """No runtime is started; the server's log is in the home, it is started again after a kill, and stopped."""
    home = tmp_path / "home"
    server = f"{sys.executable} -c \"import time; print('up', flush=True); time.sleep(600)\" {home}"
    path = f"{TOY}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    with Up(home, "--engine", "toy", "--server", f"pod-0={server}", env={"PYTHONPATH": path}) as up:
        log = home / "logs" / "server-pod-0.log"
        assert sorted(each.name for each in (home / "logs").iterdir()) == [
            "gateway.log",
            "server-pod-0.log",
            "sidecar-pod-0.log",
        ]
        assert log.read_text() == "up\n"
        (running,) = (each for each in processes_of(home) if each.info["cmdline"][1] == "-c")
        running.kill()
        wait_until(lambda: log.read_text() == "up\nup\n", timeout_s=10, what="another server")
        assert up.stop() == 0
    assert processes_of(home) == []
