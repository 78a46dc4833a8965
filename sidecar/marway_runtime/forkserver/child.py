"""A forked process becomes what TorchServe's own start of `python` would have made: a worker of its own."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

import numpy
import torch

from marway_runtime.forkserver.server import Forked
from marway_runtime.process_tree import adopt_orphans, die_with
from marway_runtime.worker.bootstrap import install, script_path
from marway_runtime.worker.overlay import OVERLAYS_ENV, find_overlay, plain_command, read_manifest

__all__ = ["become_worker", "compiled_script"]


def compiled_script() -> dict[str, CodeType]:
    """Return TorchServe's worker script by its path, compiled once for all workers."""
    path = script_path()
    return {str(path): compile(path.read_bytes(), str(path), "exec")}


def become_worker(forked: Forked, *, base_path: Sequence[str], scripts: dict[str, CodeType], home: str) -> None:
    """Make this forked process the worker that was asked for, and run its script, compiled or not, to the end.

    Where TorchServe starts a worker of a version that has an environment, it becomes a Python of its own instead: what
    the environment replaces is imported here already.

    Args:
        forked: The request.
        base_path: The `sys.path` of a Python with nothing in `PYTHONPATH`.
        scripts: What is compiled, by path.
        home: Named on the command line of such a Python.
    """
    request = forked.request
    os.setsid()  # what the handler starts is killed with it,
    adopt_orphans()  # and what leaves that session stays below it, for the fork server to find
    streams, others = request.descriptors[:3], request.descriptors[3:]
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    overlays = request.environment.get(OVERLAYS_ENV)
    manifest = read_manifest(request.cwd) if overlays else None
    overlay = find_overlay(manifest, overlays) if manifest is not None else None
    if overlay is not None:
        os.chdir(request.cwd)
        command = plain_command(home, "an environment of its own", request.arguments, overlay=overlay)
        os.execve(command[0], command, dict(request.environment))  # noqa: S606 - a list that we build
    die_with([forked.connection.fileno(), *others], group=True)
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text("marway-worker")
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ.clear()
    os.environ.update(request.environment)
    os.chdir(request.cwd)
    searched = [entry for entry in request.environment.get("PYTHONPATH", "").split(os.pathsep) if entry]
    sys.path[:] = [request.cwd, *searched, *base_path]
    sys.argv[:] = request.arguments
    _renew()
    threads = request.environment.get("OMP_NUM_THREADS")
    if threads != before and threads is not None and threads.isdigit():
        torch.set_num_threads(int(threads))  # OpenMP read the fork server's environment
    gc.enable()
    install(manifest)
    script = request.arguments[0]
    code = scripts.get(script) or compile(Path(script).read_bytes(), script, "exec")
    main = ModuleType("__main__")
    main.__file__ = script
    sys.modules["__main__"] = main
    exec(code, main.__dict__)  # noqa: S102 - TorchServe's own worker script


def _renew() -> None:
    """Draw anew what all forked workers would otherwise share: the states of random generators, and a key."""
    random.seed()
    numpy.random.seed()  # the global generator, which handlers use
    torch.seed()  # CUDA's part waits until CUDA is initialised
    multiprocessing.current_process().authkey = os.urandom(32)
