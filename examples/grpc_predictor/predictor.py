"""A predictor for the models of examples/intent, as "Engineering Deep Learning Systems" has them.

It answers `PredictorPredict(runId, document)`: the model is what lies in the directory RUN ID below its model
directory, and is loaded with its first prediction. Unlike the book's, it lets go of a model whose directory is gone.
"""

import argparse
import importlib.util
import json
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import torch
from grpc_health.v1 import health, health_pb2_grpc

messages, services = grpc.protos_and_services("predictor.proto")  # which lies beside this file
THREADS = 10
LOOK_S = 1.0


class Models:
    """The models in memory, by run."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._loaded: dict[str, tuple[torch.nn.Module, list[str]]] = {}
        self._lock = threading.Lock()

    def predict(self, run_id: str, document: str) -> str:
        """Return the intent of a sentence.

        Raises:
            FileNotFoundError: The run's directory, or a file in it, is not there.
        """
        model, labels = self._load(run_id)
        with torch.inference_mode():
            return labels[int(model(*model.encode([document])).argmax(dim=1))]

    def drop_removed(self) -> None:
        """Let go of the models whose directories are gone."""
        with self._lock:
            for run_id in [each for each in self._loaded if not (self.directory / each).is_dir()]:
                del self._loaded[run_id]
                print(f"let go of {run_id}", flush=True)

    def _load(self, run_id: str) -> tuple[torch.nn.Module, list[str]]:
        if not run_id or Path(run_id).name != run_id:
            raise FileNotFoundError(f"{run_id!r} is no run")
        with self._lock:
            if run_id not in self._loaded:
                files = self.directory / run_id
                labels = json.loads((files / "labels.json").read_text(encoding="utf-8"))
                spec = importlib.util.spec_from_file_location("intent_model", files / "model.py")
                module = importlib.util.module_from_spec(spec)
                spec.loader.exec_module(module)
                model = module.IntentClassifier(labels=len(labels))
                model.load_state_dict(torch.load(files / "weights.pt", weights_only=True))
                self._loaded[run_id] = model.eval(), labels
                print(f"loaded {run_id}", flush=True)
            return self._loaded[run_id]


class Predictor(services.PredictorServicer):
    """The service."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def PredictorPredict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802 - the service's name
        try:
            intent = self._models.predict(request.runId, request.document)
        except FileNotFoundError as exc:
            context.abort(grpc.StatusCode.NOT_FOUND, f"{request.runId}: {exc}")
        return messages.PredictorPredictResponse(response=json.dumps({"result": intent}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("/models"), help="the model directory")
    parser.add_argument("--address", default="127.0.0.1:51001")
    given = parser.parse_args()
    torch.set_num_threads(1)
    models = Models(given.models)
    server = grpc.server(ThreadPoolExecutor(THREADS))
    services.add_PredictorServicer_to_server(Predictor(models), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.HealthServicer(), server)
    server.add_insecure_port(given.address)
    server.start()
    print(f"the predictor answers at {given.address}", flush=True)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.wait(LOOK_S):
        models.drop_removed()
    server.stop(5).wait()


if __name__ == "__main__":
    main()
