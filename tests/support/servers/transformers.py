"""The server of Hugging Face's transformers, which speaks OpenAI's API, with a tiny model of random weights."""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from support.servers.environments import environment
from support.servers.process import Server

__all__ = ["Transformers", "running_transformers", "tiny_model"]

_SCRIPT = Path(__file__).with_name("tiny_model.py")
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def tiny_model(*, seed: int = 1) -> Path:
    """Return the directory of a tiny model, which says the same nonsense for a seed; it is written once."""
    bin_ = environment("transformers")
    directory = bin_.parent / f"tiny-{seed}"
    with directory.with_suffix(".lock").open("w") as lock:  # other processes of pytest-xdist want the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not directory.exists():
            # -P: what lies beside the script has the names of packages.
            new = directory.with_suffix(".new")
            command = [str(bin_ / "python"), "-P", str(_SCRIPT), str(new), str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr[-2000:]
            new.rename(directory)
    return directory


class Transformers(Server):
    """It serves one model, which requests have to name as it does: `name`."""

    health = "/health"

    def __init__(self, directory: Path, model: Path, arguments: tuple[str, ...]) -> None:
        super().__init__(directory)
        self._bin = environment("transformers")
        self.name = str(model)
        self._arguments = arguments

    @property
    def openai(self) -> str:
        """Base URL for clients of OpenAI's API."""
        return f"{self.url}/v1"

    def command(self) -> list[str]:
        serve = [str(self._bin / "transformers"), "serve", self.name, "--host", "127.0.0.1"]
        return [*serve, "--port", str(self.ports[0]), "--device", "cpu", *self._arguments]

    def variables(self) -> Mapping[str, str]:
        return {**_OFFLINE, "HF_HOME": str(self.directory / "cache"), "OMP_NUM_THREADS": "1"}


@contextmanager
def running_transformers(
    directory: Path, *, model: Path | None = None, arguments: tuple[str, ...] = ()
) -> Iterator[Transformers]:
    """Run it for the length of a block.

    Args:
        directory: An own one, below a temporary directory.
        model: What `tiny_model` returns; that of seed 1.
        arguments: More of its command line.
    """
    with Transformers(directory, model or tiny_model(), arguments) as server:
        yield server
