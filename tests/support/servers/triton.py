"""NVIDIA Triton Inference Server with its Python backend, from the wheel of PyTriton."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from support.servers.environments import python_library, site_packages
from support.servers.process import Server

__all__ = ["Triton", "running_triton"]


class Triton(Server):
    """Its model repository is `directory/models`; nothing of it is loaded until asked (`explicit`), unless told."""

    health = "/v2/health/ready"

    def __init__(self, directory: Path, control: str, arguments: Sequence[str]) -> None:
        super().__init__(directory)
        self._packages = site_packages("triton")
        self._control = control
        self._arguments = arguments
        # All Tritons of a machine would take the same names for the memory that they share with their models.
        self._shared = f"marway-triton-{self.ports[0]}-"
        self.grpc = f"127.0.0.1:{self.ports[1]}"
        self.metrics = f"http://127.0.0.1:{self.ports[2]}/metrics"
        self.repository = directory / "models"
        self.repository.mkdir(exist_ok=True)
        # The interpreter of its Python backend knows of no environment and ignores PYTHONPATH: it looks for modules in
        # its working directory, in the machine's own Python, then beside its utilities. The machine's numpy may be one
        # that it reads memory wrongly with (2, where the backend was built for 1).
        for module in ("numpy", "numpy.libs"):
            if not (directory / module).exists():
                (directory / module).symlink_to(self._packages / module)

    def command(self) -> list[str]:
        home = self._packages / "pytriton" / "tritonserver"
        http, grpc, metrics, _ = self.ports
        host = "127.0.0.1"
        return [
            str(home / "bin" / "tritonserver"), f"--model-repository={self.repository}",
            f"--backend-directory={home / 'backends'}", f"--model-control-mode={self._control}",
            f"--http-address={host}", f"--http-port={http}", f"--grpc-address={host}", f"--grpc-port={grpc}",
            f"--metrics-address={host}", f"--metrics-port={metrics}", "--exit-timeout-secs=5",
            f"--backend-config=python,shm-region-prefix-name={self._shared}", *self._arguments,
        ]  # fmt: skip

    def kill(self) -> None:
        super().kill()
        for left in Path("/dev/shm").glob(f"{self._shared}*"):
            left.unlink(missing_ok=True)

    def variables(self) -> Mapping[str, str]:
        there = os.environ.get("LD_LIBRARY_PATH", "")
        libraries = [str(self._packages / "nvidia_pytriton.libs"), python_library(), *filter(None, [there])]
        return {"LD_LIBRARY_PATH": os.pathsep.join(libraries)}


@contextmanager
def running_triton(directory: Path, *, control: str = "explicit", arguments: Sequence[str] = ()) -> Iterator[Triton]:
    """Run it for the length of a block; `directory/models` is its repository.

    Args:
        directory: An own one, below a temporary directory.
        control: `--model-control-mode`: explicit, none or poll.
        arguments: More of its command line.
    """
    with Triton(directory, control, arguments) as server:
        yield server
