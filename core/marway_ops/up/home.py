"""The home of one `marway up`: what lies where, and that only one process uses it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marway.errors import InvalidSettings

__all__ = ["Home"]


@dataclass(frozen=True, slots=True)
class Home:
    """Paths below one directory.

    ::

        registry/           models, when no other registry is named
        store/              archives, shared by all pods
        java/               Java's archive of TorchServe's classes, shared by all pods
        pods/<pod>/         the directory that a pod's runtime and sidecar share
        examples/<model>/   what training the examples left
        logs/<process>.log
        ready.json          what the ready line said, while it runs
    """

    root: Path

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def store(self) -> Path:
        return self.root / "store"

    @property
    def java(self) -> Path:
        return self.root / "java"

    @property
    def ready_file(self) -> Path:
        return self.root / "ready.json"

    def pod(self, name: str) -> Path:
        return self.root / "pods" / name

    def example(self, name: str) -> Path:
        return self.root / "examples" / name

    def log(self, process: str) -> Path:
        return self.root / "logs" / f"{process}.log"

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Hold the home for this process alone.

        Raises:
            InvalidSettings: Another `marway up` has it, or it cannot be written.
        """
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            handle = (self.root / "lock").open("a+")
        except OSError as exc:
            raise InvalidSettings(
                f"cannot use {self.root} as home: {exc.strerror}; choose another with --home"
            ) from exc
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as exc:
                handle.seek(0)
                pid = handle.read().strip() or "unknown"
                raise InvalidSettings(
                    f"{self.root} is in use by another marway up (pid {pid}): stop it, or choose another with --home"
                ) from exc
            handle.truncate(0)
            handle.write(str(os.getpid()))
            handle.flush()
            try:
                yield
            finally:
                self.ready_file.unlink(missing_ok=True)

    def write_ready(self, document: dict[str, Any]) -> None:
        """Leave the ready line where the CLI of another terminal finds it."""
        descriptor, name = tempfile.mkstemp(prefix=".ready-", dir=self.root)
        with os.fdopen(descriptor, "w") as handle:
            json.dump(document, handle)
        Path(name).replace(self.ready_file)
