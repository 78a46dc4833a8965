"""BentoML."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.servers.environments import environment
from support.servers.process import Server

__all__ = ["BentoML", "running_bentoml"]


class BentoML(Server):
    """It serves a service of a module in its directory."""

    health = "/readyz"

    def __init__(self, directory: Path, service: str) -> None:
        super().__init__(directory)
        self._bin = environment("bentoml")
        self._service = service
        self.metrics = f"{self.url}/metrics"

    def command(self) -> list[str]:
        serve = [str(self._bin / "bentoml"), "serve", self._service, "--working-dir", str(self.directory)]
        return [*serve, "--host", "127.0.0.1", "--port", str(self.ports[0])]

    def variables(self) -> Mapping[str, str]:
        home = {"BENTOML_HOME": str(self.directory / "bentoml"), "HOME": str(self.directory)}
        return {**home, "BENTOML_DO_NOT_TRACK": "true"}


@contextmanager
def running_bentoml(directory: Path, *, service: str = "service:Service") -> Iterator[BentoML]:
    """Run it for the length of a block, with a service that the test has written.

    Args:
        directory: An own one, below a temporary directory, with the module.
        service: `MODULE:CLASS`.
    """
    with BentoML(directory, service) as server:
        yield server
