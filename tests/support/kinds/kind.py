"""What the tests of releases ask of a kind of model server."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path

from support.servers import Server

__all__ = ["TAKES_S", "Kind"]

TAKES_S = 0.03


class Kind(ABC):
    """A backend, a real server for it, and a model whose answer to `hello` says `VERSION hello` somewhere.

    It takes its time, `TAKES_S`: whenever a server is killed under load, there should be requests in it.

    Attributes:
        name: In the names of tests.
        backend: Of its pods.
        body, content_type: How its model is asked.
    """

    name: str
    backend: str
    body: bytes = b"hello"
    content_type: str = "text/plain"

    @abstractmethod
    def server(self, directory: Path) -> Server:
        """Return a server that is not started yet, in a directory of its own."""

    @abstractmethod
    def publish(self, registry: str, scratch: Path, model: str, version: str) -> None:
        """Publish a version; ``scratch`` is an empty directory."""

    @abstractmethod
    def settings(self, server: Server) -> Mapping[str, object]:
        """Return the settings of a sidecar beside a server, without those that every sidecar has."""

    @staticmethod
    def version_in(answer: str) -> str | None:
        """Return which version an answer is of, as the model itself said."""
        found = re.search(r"([\w.]+) hello", answer)
        return found.group(1) if found else None
