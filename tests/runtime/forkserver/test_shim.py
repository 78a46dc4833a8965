"""The executable that TorchServe starts for each worker: to its caller it is the worker."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from pathlib import Path

import psutil
import pytest

from support.runtime import Runtime
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

TELL = """
import json, os, sys
told = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd(), sys.stdin.read()])
with open(1, "w", closefd=False) as stdout:
    stdout.write(told + "\\n")
os.write(2, b"to stderr\\n")
"""
"""Past Python's own streams, of which a worker makes log records."""
TELL_PARENT = "import os; os.write(1, b'%d' % os.getppid())"
TELL_AND_SLEEP = r"import os, time; os.write(1, b'%d\n' % os.getpid()); time.sleep(600)"


def start(runtime: Runtime, script: Path, *arguments: str, **options: object) -> subprocess.Popen[bytes]:
    launcher = runtime.directory / "worker-python"
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [launcher, script, *arguments],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options},
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return tmp_path / "script.py"


def test_everything_is_passed_on(runtime: Runtime, script: Path, tmp_path: Path) -> None:
    """Arguments, environment, directory and all three streams are the worker's, whatever is in them."""
    script.write_text(TELL)
    arguments = ["", "two words", "zwölf", "line\nbreak"]
    environment = {"PATH": os.environ["PATH"], "EMPTY": "", "LONG": "x" * 100_000, "EQUALS": "a=b", "ODD": "\udcff"}
    cwd = tmp_path / "a folder"
    cwd.mkdir()
    with start(runtime, script, *arguments, env=environment, cwd=cwd) as shim:
        out, err = shim.communicate(b"to stdin", timeout=30)
    told = json.loads(out)
    assert told[0] == arguments
    assert {name: told[1].get(name) for name in environment} == environment
    assert set(told[1]) - set(environment) <= {"LC_CTYPE", "PWD"}  # Python's and the shell's own
    assert told[2:] == [str(cwd), "to stdin"]
    assert err.decode() == "to stderr\n"
    assert shim.returncode == 0


@pytest.mark.parametrize(
    ("text", "status"),
    [
        ("raise SystemExit(7)", 7),
        ("pass", 0),
        ("raise ValueError('so')", 1),
        ("import os; os._exit(42)", 42),
        ("import os; os.kill(os.getpid(), 9)", 137),
        ("import os; os.kill(os.getpid(), 15)", 143),
        ("import atexit; atexit.register(print, 'at exit')", 0),
    ],
)
def test_the_shim_ends_with_the_workers_status(runtime: Runtime, script: Path, text: str, status: int) -> None:
    """The exit status is the worker's, and 128 + n after signal n, as Java counts it too."""
    script.write_text(text)
    with start(runtime, script) as shim:
        out, err = shim.communicate(timeout=30)
    assert shim.returncode == status, err.decode()
    assert ("at exit" in out.decode()) == ("atexit" in text)


@pytest.mark.extended  # it waits for a long time-out, and nothing else does what it does: CI runs it
def test_a_frozen_fork_server_makes_plain_workers(runtime: Runtime, script: Path) -> None:
    """A fork server that does not answer is given up after a while; the worker is plain, and says why."""
    script.write_text("import sys, psutil; print(psutil.Process().cmdline())")
    fork_server = runtime.fork_server
    fork_server.suspend()
    try:
        shim = start(runtime, script)
        assert shim.wait(60) == 0
    finally:
        fork_server.resume()
    out, _ = shim.communicate(timeout=30)  # ends: the fork server let go of the streams it was sent
    assert "'--reason', 'the fork server does not answer'" in out.decode()
    script.write_text(TELL_PARENT)
    with start(runtime, script) as shim:
        assert shim.communicate(timeout=30)[0].decode().split() == [str(fork_server.pid)]


@pytest.mark.parametrize("sent", [b"", b"\0", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 64])
def test_nonsense_does_not_harm_the_fork_server(runtime: Runtime, script: Path, sent: bytes) -> None:
    """A connection that says nothing or nonsense is closed, and the next worker is forked."""
    address = str((runtime.directory / "tmp").resolve() / "fork.sock")
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(address)
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(100) == b""
    script.write_text(TELL_PARENT)
    with start(runtime, script) as shim:
        assert shim.communicate(timeout=30)[0].decode().split() == [str(runtime.fork_server.pid)]


def test_a_worker_dies_with_its_starter(runtime: Runtime, script: Path) -> None:
    """kill -9 of the process that started a shim ends the worker, though nobody kills the shim."""
    script.write_text(TELL_AND_SLEEP)
    launcher = runtime.directory / "worker-python"
    starter = subprocess.Popen(
        ["/bin/sh", "-c", f"'{launcher}' '{script}'; :"], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        starter.kill()
        starter.wait(10)
        wait_until(lambda: not psutil.pid_exists(pid), timeout_s=10, what="the worker is gone")
        wait_until(lambda: not _group(starter.pid), timeout_s=10, what="the shim is gone")
    finally:
        starter.stdout.close()


def _group(leader: int) -> list[int]:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return []
    found = [p.pid for p in psutil.process_iter() if _in_group(p.pid, leader)]
    return [pid for pid in found if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


def _in_group(pid: int, leader: int) -> bool:
    try:
        return os.getpgid(pid) == leader
    except ProcessLookupError:
        return False


def test_a_signal_to_the_shim_ends_the_worker(runtime: Runtime, script: Path) -> None:
    """SIGTERM ends the shim as it ends a Python, and the worker with it."""
    script.write_text(TELL_AND_SLEEP)
    with start(runtime, script) as shim:
        assert shim.stdout is not None
        pid = int(shim.stdout.readline())
        shim.terminate()
        assert shim.wait(10) == -signal.SIGTERM
        wait_until(lambda: not psutil.pid_exists(pid), timeout_s=10, what="the worker is gone")
