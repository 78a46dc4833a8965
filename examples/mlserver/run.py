"""Serve a model from MLServer, release a second version and go back: `make example-mlserver`."""

import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1] / "tests")]

from model_server import Example, ServerPlan, free_ports, run  # noqa: E402 - it lies beside this directory


def plan(home: Path) -> ServerPlan:
    """Return how MLServer is started: the one that is installed, else the one that Marway's tests run."""
    program = shutil.which("mlserver")
    if program is None:
        from support.servers.environments import environment

        print("MLServer from packages, which are installed once", flush=True)
        program = str(environment("mlserver") / "mlserver")
    http, grpc, metrics = free_ports(3)
    repository = home / "models"
    variables = [
        "MLSERVER_HOST=127.0.0.1", f"MLSERVER_HTTP_PORT={http}", f"MLSERVER_GRPC_PORT={grpc}",
        f"MLSERVER_METRICS_PORT={metrics}", f"MLSERVER_MODEL_REPOSITORY_ROOT={repository}",
        "MLSERVER_LOAD_MODELS_AT_STARTUP=false", "MLSERVER_DEBUG=false",
    ]  # fmt: skip
    command = ["env", *variables, program, "start", str(repository)]
    return ServerPlan(command, f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", repository)


if __name__ == "__main__":
    sys.exit(run(Example("MLServer", HERE / "model", "weights.npz", plan)))
