"""`python -P -m marway_runtime.forkserver --home DIR --socket PATH --parent PID [--overlay DIR] [--preload MODULE…]`.

Imports what every worker needs, says `ready` on its standard output, and forks workers until SIGTERM, or until the
process that started it dies. On its standard output it also tells of workers that died (`server.Server`).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import os
import signal
import sys
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# `torch.cuda` is imported with torch and initialised by nobody here; `ts.torch_handler` would ask the driver when it is
# imported, after which no fork could use it.
_NEEDED = (
    "numpy",
    "numpy.random",  # numpy imports it when it is first used, which each worker does: 15 ms and 4 MiB each
    "torch",
    "ts.arg_parser",
    "ts.async_service",
    "ts.metrics.metric_cache_yaml_impl",
    "ts.model_loader",
    "ts.protocol.otf_message_handler",
    "ts.service",
    "marway_runtime.engines.native.worker",
    "marway_runtime.worker.bootstrap",
    "marway_runtime.forkserver.child",
)


def main() -> None:
    """Serve; in a forked child, be a worker."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)  # so that a process list shows whose it is
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--overlay", help="goes in front of what this Python has")
    parser.add_argument("--preload", nargs="*", default=[])
    options = parser.parse_args()
    # SIGTERM, not SIGKILL: while it serves, it takes its workers along.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != options.parent:
        sys.exit(1)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    base_path = [entry for entry in sys.path if entry not in given]
    if options.overlay:
        base_path.insert(0, options.overlay)
        sys.path.insert(0, options.overlay)
    for name in _NEEDED:
        importlib.import_module(name)
    for name in options.preload:
        try:
            importlib.import_module(name)
        except ImportError as exc:
            print(f"{name} is not preloaded: {exc}", file=sys.stderr)
    _refuse_what_a_fork_would_break()

    from marway_runtime.forkserver.child import become_worker, compiled_script
    from marway_runtime.forkserver.server import Server

    scripts = compiled_script()
    server = Server(options.socket, deaths=os.dup(1))
    print("ready", flush=True)
    os.dup2(2, 1)  # the pipe is for what the server tells, and nobody's standard output
    # What lives now lives in all workers: never looked at by their collectors, so that its pages stay shared.
    gc.disable()
    gc.collect()
    gc.freeze()
    forked = server.serve()
    if forked is not None:
        become_worker(forked, base_path=base_path, scripts=scripts, home=options.home)


def _refuse_what_a_fork_would_break() -> None:
    import torch

    threads = len(os.listdir("/proc/self/task"))  # noqa: PTH208 - names are all that is wanted
    if threads != 1:
        sys.exit(f"there are {threads} threads after the imports, and only one would be in a forked worker")
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        sys.exit("CUDA is initialised after the imports, and no forked worker could use it")


if __name__ == "__main__":
    main()
