"""What dies or freezes comes back, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from marway.wire.runtime import LOGS, RUNTIME_FILE, RUNTIME_SOCKET
from support.cgroups import memory_cgroup
from support.runtime import Runtime
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(200)]


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home whose runtime directory is too deep for a Unix socket's path."""
    return tmp_path / ("a folder with a long name " + "x" * 60) / "it's a home"


@pytest.fixture
def own(home: Path, archives: Path) -> Iterator[Runtime]:
    """A runtime of the test's own, with one model."""
    with Runtime(home, archives) as running:
        running.register("model")
        yield running


def gone(pids: list[int]) -> Callable[[], bool]:
    def none_left() -> bool:
        for pid in pids:
            try:
                if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                    return False
            except psutil.NoSuchProcess:
                continue
        return True

    return none_left


@pytest.mark.extended  # the tests beside it start and end the same processes
def test_a_killed_fork_server_comes_back(own: Runtime) -> None:
    """Its workers go on serving, the next is plain and says why, and after the restart workers are forked again."""
    first = own.worker("model")
    fork_server = own.fork_server
    own.process.send_signal(signal.SIGSTOP)  # so that it is not started again before we have looked
    try:
        fork_server.kill()
        own.register("second")
    finally:
        own.process.send_signal(signal.SIGCONT)
    second = own.worker("second")
    assert (second.mode, second.reason) == ("plain", "no fork server")
    assert own.metric('marway_runtime_workers{mode="plain",reason="no fork server"}') == 1
    assert own.ask("model")["pid"] == first.pid
    assert own.worker("model").mode == "forked"
    wait_until(lambda: own.metric('marway_runtime_up{part="forkserver"}') == 1, timeout_s=60, what="it is up again")
    assert own.metric('marway_runtime_restarts_total{part="forkserver",reason="ended"}') == 1
    own.register("third")
    assert own.worker("third").mode == "forked"
    # A worker that outlived its fork server still goes with its shim.
    own.shim(first).kill()
    wait_until(gone([first.pid]), timeout_s=5, what="the worker is gone")
    wait_until(lambda: own.predict("model").status_code == 200, timeout_s=30, what="another one serves")
    assert own.worker("model").mode == "forked"


def test_fault_a_greedy_worker(home: Path, archives: Path) -> None:
    """A worker over its limit of memory is killed and started again; TorchServe and other models' workers are not."""
    with Runtime(home, archives, {"MARWAY_RUNTIME_WORKER_MEMORY_BYTES": str(512 << 20)}) as own:
        own.register("greedy")
        own.register("other")
        other, java = own.worker("other"), own.info.pid
        assert own.ask("greedy", "eat 4") == "has 4"  # 64 MiB
        first = own.worker("greedy")
        assert own.predict("greedy", "eat 128").status_code >= 500  # 2 GiB
        wait_until(gone([first.pid]), timeout_s=10, what="the greedy worker is gone")
        wait_until(lambda: own.predict("greedy").status_code == 200, timeout_s=60, what="another one serves")
        assert own.metric('marway_runtime_worker_deaths_total{reason="memory"}') == 1
        assert (own.worker("other").pid, own.info.pid) == (other.pid, java)
        assert own.ask("other")["pid"] == other.pid
        adjusted = Path(f"/proc/{other.pid}/oom_score_adj").read_text().strip()
        assert adjusted == "1000"  # the kernel takes workers first, too


@pytest.mark.extended  # the tests beside it start and end the same processes
def test_fault_a_greedy_worker_beside_a_large_one(home: Path, archives: Path) -> None:
    """Before a container is full, the worker that grows is killed, not the larger one beside it, nor by the kernel.

    A group kill (`memory.oom.group`) takes every process of the container along: the kernel must never have to choose.
    """
    limit = 2 << 30
    with memory_cgroup(limit) as folder, Runtime(home, archives, cgroup=folder) as own:
        assert own.info.memory_limit_bytes == limit
        own.register("large")
        own.register("greedy")
        assert own.ask("large", "keep 48") == "has 48"  # 768 MiB, below nine tenths of the limit as all that follows
        large, greedy, java = own.worker("large"), own.worker("greedy"), own.info.pid
        grew = time.monotonic()  # and growth is what came within the last two to four seconds
        wait_until(lambda: time.monotonic() > grew + 6, timeout_s=10, what="the large one has grown long ago")
        assert own.predict("greedy", "eat 128").status_code >= 500
        wait_until(gone([greedy.pid]), timeout_s=10, what="the greedy worker is gone")
        wait_until(lambda: own.predict("greedy").status_code == 200, timeout_s=60, what="another one serves")
        assert (own.worker("large").pid, own.info.pid) == (large.pid, java)
        (death,) = own.state().deaths
        assert (death.server_name, death.reason, death.count) == ("greedy", "memory", 1)
        assert "oom_kill 0" in (folder / "memory.oom_control").read_text()


def test_fault_workers_die(own: Runtime) -> None:
    """Each way to die is counted once, by what the worker served; what TorchServe ends, or ends well, is not."""
    for how in ("signal 9", "signal 11", "exit 3", "exit 0"):
        first = own.worker("model")
        assert own.predict("model", how).status_code >= 500
        wait_until(gone([first.pid]), timeout_s=10, what="the worker is gone")
        wait_until(lambda: own.predict("model").status_code == 200, timeout_s=60, what="another one serves")
    own.register("passing")
    own.unregister("passing")
    wait_until(lambda: not own.workers("passing"), timeout_s=10, what="its worker is gone")
    found = {(each.server_name, each.reason): each.count for each in own.state().deaths}
    assert found == {("model", "killed"): 1, ("model", "signal"): 1, ("model", "exit"): 1}
    for reason in ("killed", "signal", "exit"):
        assert own.metric(f'marway_runtime_worker_deaths_total{{reason="{reason}"}}') == 1


@pytest.mark.extended  # the tests beside it start and end the same processes
def test_torchserve_dies_and_its_debris_goes(own: Runtime) -> None:
    """kill -9 of Java: its workers, shims, sockets, archives and key file are gone; the fork server serves the next."""
    before = own.info
    worker = own.worker("model")
    pids = [worker.pid, own.shim(worker).pid, before.pid]
    fork_server = own.fork_server.pid
    temporary = (own.directory / "tmp").resolve() / "t"
    assert [path.name for path in temporary.glob(".ts.sock.*")] == [".ts.sock.9000"]
    assert list(temporary.glob("models/*"))
    (own.directory / "work" / "key_file.json").write_text("{}")
    os.kill(before.pid, signal.SIGKILL)
    wait_until(gone(pids), timeout_s=10, what="all of it is gone")
    after = own.wait_ready(other_than=before.boot_id)
    assert after.pid != before.pid
    assert not list(temporary.glob(".ts.sock.*"))
    assert not list(temporary.glob("models/*"))
    assert not list((own.directory / "work").glob("key_file.json"))
    assert own.metric('marway_runtime_restarts_total{part="torchserve",reason="ended"}') == 1
    own.register("model")
    assert own.worker("model").mode == "forked"
    assert own.fork_server.pid == fork_server


def test_a_frozen_torchserve_is_out_of_rotation_and_back(own: Runtime) -> None:
    """SIGSTOP takes runtime.json away, SIGCONT brings it back as it was: the models are still loaded."""
    before = own.info
    java = psutil.Process(before.pid)
    java.suspend()
    began = time.monotonic()
    wait_until(lambda: not own.announced, timeout_s=20, what="runtime.json is gone")
    print(f"out of rotation after {time.monotonic() - began:.1f} s")
    assert own.metric('marway_runtime_up{part="torchserve"}') == 0
    java.resume()
    wait_until(lambda: own.announced, timeout_s=10, what="runtime.json is back")
    assert own.info == before
    assert own.ask("model", "print x") == "printed"


@pytest.mark.extended  # the tests beside it start and end the same processes
def test_a_torchserve_that_stays_frozen_is_started_again(tmp_path: Path, archives: Path) -> None:
    """It is killed with its workers when it has not answered for the time in the settings, and another one serves."""
    with Runtime(tmp_path / "home", archives, {"MARWAY_RUNTIME_FROZEN_TIMEOUT_S": "3"}) as own:
        own.register("model")
        before = own.info
        worker = own.worker("model")
        pids = [worker.pid, own.shim(worker).pid, before.pid]
        psutil.Process(before.pid).suspend()
        wait_until(gone(pids), timeout_s=40, what="it was killed with its workers")
        own.wait_ready(other_than=before.boot_id)
        assert own.metric('marway_runtime_restarts_total{part="torchserve",reason="frozen"}') == 1
        own.register("model")


@pytest.mark.extended  # the tests beside it start and end the same processes
def test_a_restart_that_is_asked_for(own: Runtime) -> None:
    """`POST /restart` answers at once and gives a new TorchServe with nothing loaded; the fork server stays."""
    before, fork_server = own.info, own.fork_server.pid
    assert own.control("POST", "/restart").status_code == 202
    own.wait_ready(other_than=before.boot_id)
    assert own.metric('marway_runtime_restarts_total{part="torchserve",reason="asked"}') == 1
    assert own.state().workers == ()
    own.register("model")
    assert own.fork_server.pid == fork_server
    assert own.control("GET", "/restart").status_code == 405


def test_nothing_outlives_a_killed_runtime(own: Runtime, archives: Path) -> None:
    """kill -9 of the runtime: Java, fork server, workers and shims are gone, and the next start clears the files."""
    worker = own.worker("model")
    # One worker that lost its fork server, one that has it.
    first_fork_server = own.fork_server
    first_fork_server.kill()
    wait_until(
        lambda: (
            own.metric('marway_runtime_restarts_total{part="forkserver",reason="ended"}') == 1
            and own.metric('marway_runtime_up{part="forkserver"}') == 1
        ),
        timeout_s=60,
        what="another fork server",
    )
    own.register("second")
    short = (own.directory / "tmp").resolve()
    pids = [process.pid for process in own.processes()]
    assert {worker.pid, own.info.pid, own.fork_server.pid, own.worker("second").pid} <= set(pids)
    own.process.kill()
    own.process.wait(10)
    wait_until(gone(pids), timeout_s=10, what="everything is gone")
    assert own.processes() == []
    assert short.exists()
    (own.directory / ".runtime.json-left").touch()
    with Runtime(own.home, archives) as again:
        assert not short.exists()
        assert not (own.directory / ".runtime.json-left").exists()
        again.register("model")
        assert again.worker("model").mode == "forked"
        short = (own.directory / "tmp").resolve()
        assert again.stop() == 0
        assert again.processes() == []
        assert not short.exists()
        assert not (own.directory / RUNTIME_FILE).exists()
        assert not (own.directory / RUNTIME_SOCKET).exists()
        assert sorted(path.name for path in own.directory.iterdir()) == [
            "config.properties",
            LOGS,
            "runtime.lock",
            "work",
            "worker-bin",
            "worker-python",
        ]
