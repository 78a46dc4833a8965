"""Lightning's LitServe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.servers.environments import environment
from support.servers.process import Server

__all__ = ["LitServe", "running_litserve"]


class LitServe(Server):
    """It is a script, which is given the port."""

    health = "/health"

    def __init__(self, directory: Path, script: str) -> None:
        super().__init__(directory)
        self._bin = environment("litserve")
        self._script = directory / script

    def command(self) -> list[str]:
        return [str(self._bin / "python"), str(self._script), str(self.ports[0])]


@contextmanager
def running_litserve(directory: Path, *, script: str = "server.py") -> Iterator[LitServe]:
    """Run it for the length of a block, with a script that the test has written.

    Args:
        directory: An own one, below a temporary directory, with the script.
        script: Its name; it serves on 127.0.0.1 at the port that is its first argument.
    """
    with LitServe(directory, script) as server:
        yield server
