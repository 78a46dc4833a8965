"""Old servers to take over: real ones, with what teams have beside them, and requests of their clients."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx

from support.servers import running_mlserver, running_triton
from support.torchserve import StockTorchServe, archive

__all__ = [
    "OLD_SERVERS",
    "OldServer",
    "old_kserve",
    "old_mlserver",
    "old_modelmesh",
    "old_torchserve",
    "old_triton",
    "write_requests",
]

SENTIMENT = """\
import json

_SCORES = {"good": 0.4, "great": 0.45, "love": 0.3, "bad": -0.4, "awful": -0.45, "late": -0.2, "not": -0.15}


class Sentiment:
    def __init__(self):
        self.initialized = False

    def initialize(self, context):
        self.initialized = True

    def handle(self, data, context):
        return [self._one(row if "text" in row else row.get("body") or row.get("data")) for row in data]

    def _one(self, row):
        text = row["text"] if isinstance(row, dict) else row if isinstance(row, str) else bytes(row).decode()
        score = sum(_SCORES.get(word.strip(".,!").lower(), 0.0) for word in text.split())
        positive = min(1.0, max(0.0, 0.5 + score))
        label = "positive" if positive >= 0.5 else "negative"
        return {"label": label, "scores": {"positive": positive, "negative": 1 - positive}}
"""
SHOUT = """\
def handle(data, context):
    if data is None:
        return None
    texts = [row.get("body") or row.get("data") for row in data]
    return [(text if isinstance(text, str) else text.decode()).upper() + "MARK" for text in texts]
"""
TEXTS = (
    "a great phone, I love it",
    "the parcel was late and the box was awful",
    "not bad",
    "it does what it says",
    "good sound, bad battery",
    "Great!",
)


TRITON_CONFIG = """\
name: "doubler"
backend: "python"
max_batch_size: 8
input [{ name: "x" data_type: TYPE_FP32 dims: [4] }]
output [{ name: "y" data_type: TYPE_FP32 dims: [4] }, { name: "sum" data_type: TYPE_FP32 dims: [1] }]
"""
TRITON_MODEL = """\
import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            x = utils.get_input_tensor_by_name(request, "x").as_numpy()
            y = utils.Tensor("y", x * 2)
            answers.append(utils.InferenceResponse([y, utils.Tensor("sum", x.sum(axis=1, keepdims=True))]))
        return answers
"""
UPPER_CONFIG = """\
name: "upper"
backend: "python"
input [{ name: "text" data_type: TYPE_STRING dims: [1] }]
output [{ name: "said" data_type: TYPE_STRING dims: [1] }]
"""
UPPER_MODEL = """\
import numpy
import triton_python_backend_utils as utils


class TritonPythonModel:
    def execute(self, requests):
        answers = []
        for request in requests:
            text = utils.get_input_tensor_by_name(request, "text").as_numpy()
            said = numpy.array([each.upper() for each in text.ravel()], dtype=object).reshape(text.shape)
            answers.append(utils.InferenceResponse([utils.Tensor("said", said)]))
        return answers
"""
MLSERVER_SETTINGS = {
    "name": "iris",
    "implementation": "iris.Iris",
    "parameters": {"version": "v3"},
    "inputs": [{"name": "petal", "datatype": "FP64", "shape": [-1, 2]}],
    "outputs": [{"name": "kind", "datatype": "BYTES", "shape": [-1]}],
}
MLSERVER_MODEL = """\
import numpy
from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceResponse


class Iris(MLModel):
    async def predict(self, payload):
        petal = NumpyCodec.decode_input(payload.inputs[0])
        score = petal @ numpy.array([0.4, 1.1])
        kinds = [["setosa", "versicolor", "virginica"][int((each > 1.2) + (each > 3.9))] for each in score]
        outputs = [StringCodec.encode_output("kind", kinds), NumpyCodec.encode_output("score", score)]
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=outputs)
"""
INFERENCE_SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata:
  name: reviews
  namespace: shop
spec:
  predictor:
    minReplicas: 2
    maxReplicas: 4
    timeout: 30
    model:
      modelFormat:
        name: pytorch
      storageUri: file://STORE
      env:
        - name: TS_SERVICE_ENVELOPE
          value: kserve
      resources:
        limits: {cpu: "1", memory: 2Gi}
---
apiVersion: serving.kserve.io/v1alpha1
kind: ServingRuntime
metadata:
  name: shop-torchserve
  namespace: shop
spec:
  supportedModelFormats:
    - name: pytorch
      version: "1"
  containers:
    - name: kserve-container
      image: pytorch/torchserve-kfs:0.12.0
      args: [torchserve, --start, --model-store=/mnt/models/model-store, --ts-config=/mnt/models/config/config.properties]
"""
PREDICTOR = """\
apiVersion: serving.kserve.io/v1alpha1
kind: Predictor
metadata:
  name: reviews
  namespace: shop
spec:
  modelType:
    name: pytorch-mar
  path: reviews/sentiment.mar
  storage:
    s3:
      secretKey: shop
      bucket: models
  runtime:
    name: torchserve-0.x
"""
STORAGE_CONFIG = """\
apiVersion: v1
kind: Secret
metadata:
  name: storage-config
  namespace: shop
stringData:
  shop: |
    {"type": "s3", "access_key_id": "shop", "secret_access_key": "not-a-secret", "endpoint_url": "http://minio:9000",
     "default_bucket": "models", "region": "us-east-1"}
"""


@dataclass(frozen=True)
class OldServer:
    """One that runs, and what it was started with.

    Attributes:
        source: What `marway adopt` is given.
        url: Where it answers.
        requests: A file of its clients' requests.
        arguments: More for `marway adopt`.
        environment: More variables for it.
    """

    source: Path
    url: str
    requests: Path
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def _register(server: StockTorchServe, file: str, **more: str) -> None:
    query = {"url": file, "synchronous": "true", "initial_workers": "1", **more}
    answer = httpx.post(f"{server.addresses['management']}/models", params=query, timeout=120, trust_env=False)
    assert answer.status_code == 200, answer.text


@contextmanager
def old_torchserve(home: Path) -> Iterator[OldServer]:
    """Run TorchServe with two models, one of them in two versions, and have it write a snapshot of what it serves."""
    with StockTorchServe(home / "torchserve", tokens=False, snapshots=True) as server:
        archive(server.store, "sentiment", SENTIMENT, file="sentiment.mar")
        _register(server, "sentiment.mar", batch_size="4", max_batch_delay="20")
        for version in ("1.0", "2.0"):
            file = archive(server.store, "shout", SHOUT.replace("MARK", "!" * int(version[0])), version=version)
            _register(server, file.name)
        management = server.addresses["management"]
        answer = httpx.put(f"{management}/models/shout/2.0/set-default", timeout=30, trust_env=False)
        assert answer.status_code == 200, answer.text
        lines: list[dict[str, Any]] = [{"path": "/predictions/sentiment", "body": {"text": text}} for text in TEXTS]
        lines += [{"path": "/predictions/shout", "body": text} for text in TEXTS[:3]]
        lines += [
            {"path": "/predictions/shout/1.0", "body": "hello"},
            {"path": "/predictions/sentiment", "body": {"words": "no text"}},
            {"method": "GET", "path": "/ping"},
        ]
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(server.work, server.addresses["inference"], requests)


@contextmanager
def old_kserve(home: Path) -> Iterator[OldServer]:
    """Run a TorchServe as KServe's image does, behind a router that knows a service by its host, as its gateway does."""
    host = "reviews.shop.example.com"
    with _behind_router(home / "kserve", "kserve", r"/v1/models/([^/:]+):predict", host) as (url, store, config):
        lines = [
            {"path": "/v1/models/sentiment:predict", "headers": {"Host": host}, "body": {"instances": [{"text": text}]}}
            for text in TEXTS
        ]
        lines.append({**lines[0], "body": {"instances": [{"text": text} for text in TEXTS[:3]]}})
        (store.parent / "config").mkdir()
        (store.parent / "config" / "config.properties").write_text(config)
        source = home / "reviews.yaml"
        source.write_text(INFERENCE_SERVICE.replace("STORE", str(store.parent)))
        yield OldServer(source, url, write_requests(home / "requests.jsonl", lines))


@contextmanager
def old_modelmesh(home: Path) -> Iterator[OldServer]:
    """Run a TorchServe as ModelMesh's runtime does, behind a proxy that gives v2 over REST."""
    with _behind_router(home / "modelmesh", "kservev2", r"/v2/models/([^/]+)/infer", None) as (url, store, _):
        bucket = home / "bucket" / "reviews"
        bucket.mkdir(parents=True)
        (bucket / "sentiment.mar").write_bytes((store / "sentiment.mar").read_bytes())
        tensor = {"name": "text", "shape": [1], "datatype": "BYTES"}
        lines = [
            {"path": "/v2/models/reviews/infer", "body": {"inputs": [{**tensor, "data": [text]}]}} for text in TEXTS
        ]
        source = home / "manifests"
        source.mkdir()
        (source / "predictor.yaml").write_text(PREDICTOR)
        (source / "storage-config.yaml").write_text(STORAGE_CONFIG)
        arguments = ("--storage", f"s3://models={home / 'bucket'}")
        yield OldServer(source, url, write_requests(home / "requests.jsonl", lines), arguments)


@contextmanager
def old_triton(home: Path) -> Iterator[OldServer]:
    """Run a Triton that serves its repository as most do, and beside it the one that Marway's pod is to have."""
    (home / "triton").mkdir(parents=True)
    repository = home / "triton" / "models"
    for name, config, model in (("doubler", TRITON_CONFIG, TRITON_MODEL), ("upper", UPPER_CONFIG, UPPER_MODEL)):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "config.pbtxt").write_text(config)
        (repository / name / "1" / "model.py").write_text(model)
    with ExitStack() as stack:
        old = stack.enter_context(running_triton(home / "triton", control="none"))
        new = stack.enter_context(running_triton(home / "pod"))
        lines = [
            _v2("doubler", {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [0.5, at, -at, 1.25]})
            for at in range(4)
        ]
        lines += [_v2("upper", {"name": "text", "shape": [1], "datatype": "BYTES", "data": [text]}) for text in TEXTS]
        lines.append(_v2("doubler", {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}))
        lines.append({"path": "/v2/models/upper/versions/1/infer", "body": lines[-2]["body"]})
        environment = {
            "MARWAY_SIDECAR_OPEN_INFERENCE_URL": new.url,
            "MARWAY_SIDECAR_OPEN_INFERENCE_GRPC": new.grpc,
            "MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY": str(new.repository),
        }
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(repository, old.url, requests, environment=environment)


@contextmanager
def old_mlserver(home: Path) -> Iterator[OldServer]:
    """Run an MLServer, and beside it the one that Marway's pod is to have."""
    model = home / "mlserver" / "models" / "iris"
    model.mkdir(parents=True)
    (model / "model-settings.json").write_text(json.dumps(MLSERVER_SETTINGS))
    (model / "iris.py").write_text(MLSERVER_MODEL)
    with ExitStack() as stack:
        old = stack.enter_context(running_mlserver(home / "mlserver"))
        new = stack.enter_context(running_mlserver(home / "pod", load_models_at_startup=False))
        petals = ([1.4, 0.2], [4.7, 1.4], [6.0, 2.5], [4.9, 1.5])
        lines = [_v2("iris", {"name": "petal", "shape": [1, 2], "datatype": "FP64", "data": petal}) for petal in petals]
        both = [*petals[0], *petals[2]]
        lines.append(_v2("iris", {"name": "petal", "shape": [2, 2], "datatype": "FP64", "data": both}))
        environment = {
            "MARWAY_SIDECAR_OPEN_INFERENCE_URL": new.url,
            "MARWAY_SIDECAR_OPEN_INFERENCE_GRPC": new.grpc,
            "MARWAY_SIDECAR_OPEN_INFERENCE_REPOSITORY": str(new.repository),
        }
        requests = write_requests(home / "requests.jsonl", lines)
        yield OldServer(home / "mlserver", old.url, requests, environment=environment)


def _v2(model: str, tensor: Mapping[str, Any]) -> dict[str, Any]:
    return {"path": f"/v2/models/{model}/infer", "body": {"inputs": [tensor]}}


@contextmanager
def _behind_router(home: Path, envelope: str, path: str, host: str | None) -> Iterator[tuple[str, Path, str]]:
    """Run TorchServe with an envelope of KServe's, and before it what routes and renames paths in a cluster.

    Yields the router's address, the model store, and what KServe would have in config.properties.
    """
    with StockTorchServe(home, tokens=False, service_envelope=envelope) as server:
        archive(server.store, "sentiment", SENTIMENT, file="sentiment.mar")
        _register(server, "sentiment.mar")
        router = _Router(server.addresses["inference"], re.compile(path), host)
        threading.Thread(target=router.serve_forever, args=(0.05,), daemon=True).start()
        model = {"defaultVersion": True, "marName": "sentiment.mar", "minWorkers": 1, "maxWorkers": 1, "batchSize": 1,
                 "maxBatchDelay": 10, "responseTimeout": 120}  # fmt: skip
        snapshot = {"name": "startup.cfg", "modelCount": 1, "models": {"sentiment": {"1.0": model}}}
        config = (
            "inference_address=http://0.0.0.0:8085\nmanagement_address=http://0.0.0.0:8085\nenable_envvars_config=true\n"
            f"model_store=/mnt/models/model-store\nmodel_snapshot={json.dumps(snapshot)}\n"
        )
        try:
            yield f"http://127.0.0.1:{router.server_address[1]}", server.store, config
        finally:
            router.shutdown()
            router.server_close()


class _Router(ThreadingHTTPServer):
    """Passes predictions on to a TorchServe under the path that it has there."""

    daemon_threads = True

    def __init__(self, target: str, path: re.Pattern[str], host: str | None) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            wbufsize = -1

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                found = path.fullmatch(self.path)
                if found is None or host not in (None, self.headers.get("host")):
                    self._answer(404, "text/plain", b"no such service")
                    return
                connection = HTTPConnection(urlsplit(target).netloc, timeout=60)
                sent = {"content-type": self.headers.get("content-type", "application/json")}
                connection.request("POST", "/predictions/sentiment", body, sent)
                answer = connection.getresponse()
                self._answer(answer.status, "application/json", answer.read())
                connection.close()

            def _answer(self, status: int, kind: str, data: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def write_requests(path: Path, lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write a file of requests and return it."""
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return path


OLD_SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[OldServer]]] = {
    "torchserve": old_torchserve,
    "kserve": old_kserve,
    "modelmesh": old_modelmesh,
    "triton": old_triton,
    "mlserver": old_mlserver,
}
