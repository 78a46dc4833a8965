"""Serve a model from NVIDIA Triton, release a second version and go back: `make example-triton`."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests")]

from model_server import Example, ServerPlan, free_ports, run  # noqa: E402 - it lies beside this directory


def plan(home: Path) -> ServerPlan:
    """Return how Triton is started: the one that is installed, else the one in a wheel that Marway's tests run."""
    if shutil.which("tritonserver") is None:
        return _from_packages(home)
    http, grpc, metrics = free_ports(3)
    repository = home / "models"
    command = [
        "tritonserver", f"--model-repository={repository}", "--model-control-mode=explicit",
        "--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
        "--metrics-address=127.0.0.1", f"--metrics-port={metrics}",
    ]  # fmt: skip
    return ServerPlan(command, f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", repository)


def _from_packages(home: Path) -> ServerPlan:
    from support.servers.triton import Triton

    print("Triton from packages, which are installed once", flush=True)
    server = Triton(home, "explicit", ())
    variables = [f"{name}={value}" for name, value in server.variables().items()]
    return ServerPlan(
        ["env", "-u", "PYTHONSAFEPATH", *variables, *server.command()], server.url, server.grpc, server.repository
    )


if __name__ == "__main__":
    sys.exit(run(Example("NVIDIA Triton", HERE / "model", "1/weights.npz", plan)))
