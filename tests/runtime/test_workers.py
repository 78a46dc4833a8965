"""What the process table says of workers, whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from marway_runtime.workers import OWN_RUNTIME, Worker, find_workers, measured

WAITS = "import sys; print('up', flush=True); sys.stdin.read()"


@contextmanager
def running(*command: str | Path) -> Iterator[int]:
    """Run a program that waits for the end of its input, and give its pid once it is up."""
    with subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"up\n"
            yield process.pid
        finally:
            process.kill()


def test_workers_are_recognised_and_others_are_not(tmp_path: Path) -> None:
    """A worker that TorchServe started by itself (the archive's own Python, torchrun) is plain and says why; one that
    our launcher could not have forked says its own reason; what only passes the script's name on is none."""
    script = tmp_path / "model_service_worker.py"
    script.write_text(WAITS)
    launcher = tmp_path / "torchrun"
    launcher.write_text(WAITS)
    with ExitStack() as stack:
        own = stack.enter_context(running(sys.executable, script, "--sock-type", "unix"))
        reason = ("--reason", "no fork server", "--", str(script))
        fallen = stack.enter_context(running(sys.executable, "-c", WAITS, "marway_runtime.worker", *reason))
        launched = stack.enter_context(running(sys.executable, launcher, script))
        other = stack.enter_context(running(sys.executable, "-c", WAITS, "something else"))
        mine = {own, fallen, launched, other}  # other tests' servers are below this process, too
        found = [worker for worker in find_workers(os.getpid()) if worker.pid in mine]
        assert found == sorted(
            [Worker(own, "plain", OWN_RUNTIME), Worker(fallen, "plain", "no fork server")], key=lambda each: each.pid
        )
        (tmp_path / "names").mkdir()
        (tmp_path / "names" / str(own)).write_text("mv_MODEL")
        names = {worker.pid: worker.server_name for worker in measured(found, tmp_path / "names")}
        assert names == {own: "mv_MODEL", fallen: None}
    assert not mine & {worker.pid for worker in find_workers(os.getpid())}
    assert measured(found, tmp_path / "names") == []
