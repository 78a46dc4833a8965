"""A gateway as a process of its own, over pods that run already."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import httpx
from prometheus_client.parser import text_string_to_metric_families

from support.up import wait_until

__all__ = ["GatewayProcess", "metric"]

START_TIMEOUT_S = 60


def metric(url: str, name: str, **labels: str) -> float:
    """Return the sum of a gateway's samples of this name that have these labels."""
    text = httpx.get(f"{url}/metrics", timeout=30, trust_env=False).raise_for_status().text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


class GatewayProcess:
    """Used as a context manager it serves, and is gone afterwards, whatever happened.

    Args:
        home: A directory of its own.
        registry: Registry URL.
        pods: `NAME=URL` each, or a name behind which they are found.
        environment: More environment variables.
        settings: Set in its environment.
    """

    def __init__(
        self,
        home: Path,
        *,
        registry: str,
        pods: Sequence[str],
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        ports = ("--port", "0", "--admin-port", "0", "--grpc-port", "0")
        command = [sys.executable, "-m", "marway", "gateway", "--registry", registry, "--pods", ",".join(pods), *ports]
        env = {f"MARWAY_GATEWAY_{name.upper()}": str(value) for name, value in settings.items()}
        self.process = subprocess.Popen(
            [*command, "--home", str(home)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {}), **env},
        )
        self.addresses: dict[str, Any] = {}
        self._said: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            wait_until(self._serves, timeout_s=START_TIMEOUT_S, what=f"a gateway: {''.join(self._said)[-2000:]}")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def url(self) -> str:
        return str(self.addresses["gateway"])

    @property
    def said(self) -> str:
        """What it has written to its standard output."""
        return "".join(self._said)

    def _serves(self) -> bool:
        if not self.addresses:
            return False
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10, trust_env=False).status_code == 200
        except httpx.TransportError:
            return False

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._said.append(line)
            record = json.loads(line)
            if record["message"] == "ready":
                self.addresses = {
                    name: record[name] for name in ("gateway", "admin", "grpc", "admin_grpc") if name in record
                }
