"""What the process table says of workers, whoever started them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from marway_runtime.engines.torchserve.configuration import write_worker_launcher
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


SHADOWS = ("marway", "marway_runtime", "ts", "torch", "numpy")
"""Packages of which an archive may hold ones of its own, by mistake or not."""


def test_an_archive_shadows_nothing_of_a_plain_worker(tmp_path: Path) -> None:
    """What an archive holds under our names, TorchServe's or torch's is not taken for them, nor is its
    `sitecustomize.py` run; its own modules are found first all the same, and so is what `PYTHONPATH` names."""
    archive, beside = tmp_path / "archive", tmp_path / "beside"
    for name in SHADOWS:
        (archive / name).mkdir(parents=True)
        (archive / name / "__init__.py").write_text("raise RuntimeError('the archive was taken for it')")
    (archive / "sitecustomize.py").write_text("print('sitecustomize ran', flush=True)")
    (archive / "helper.py").write_text("")
    beside.mkdir()
    (beside / "more.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, helper, more\n"
        f"for name in {SHADOWS!r}: __import__(name)\n"
        "import marway.errors, ts.torch_handler.base_handler, torch.utils.data, marway_runtime.worker.field_reader\n"
        "told = '|'.join((helper.__file__, more.__file__, sys.path[0], *sys.argv))\n"
        "sys.__stdout__.write(told + '\\n')\n"  # of `print` a worker makes log records
    )
    launcher = tmp_path / "launcher"
    write_worker_launcher(launcher, home=tmp_path, fork_socket=None)
    done = subprocess.run(
        [launcher, script, "an argument"],
        cwd=archive,
        env={**os.environ, "PYTHONPATH": f"{archive}{os.pathsep}{beside}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expected = (archive / "helper.py", beside / "more.py", archive, script, "an argument")
    assert done.stdout.splitlines()[-1] == "|".join(map(str, expected))  # behind what TorchServe's handlers log
    assert "sitecustomize" not in done.stdout


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
