"""A stand-in for TensorFlow Serving: it speaks the official messages over gRPC and REST, and its models are a word in a
file. There is no package with the server itself.

What it does is what the server's sources say: `model_servers/server_core.cc` for lists of models and their waiting,
`predict_util.cc` for predictions, `http_rest_api_handler.cc` for REST.
"""

from __future__ import annotations

import base64
import contextlib
import json
import re
import struct
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import grpc
from google.protobuf import json_format

from marway.archives.entries import from_bytes
from marway.archives.zipformat import write_archive
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_pb2 as tf
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2_grpc as services
from support.servers.process import free_ports

__all__ = ["StandIn", "saved_model", "write_bundle"]

_TYPED = {
    tf.DT_FLOAT: ("f", "float_val"), tf.DT_DOUBLE: ("d", "double_val"), tf.DT_HALF: ("H", "half_val"),
    tf.DT_BFLOAT16: ("H", "half_val"), tf.DT_BOOL: ("?", "bool_val"), tf.DT_INT64: ("q", "int64_val"),
    tf.DT_UINT32: ("I", "uint32_val"), tf.DT_UINT64: ("Q", "uint64_val"), tf.DT_INT8: ("b", "int_val"),
    tf.DT_INT16: ("h", "int_val"), tf.DT_INT32: ("i", "int_val"), tf.DT_UINT8: ("B", "int_val"),
    tf.DT_UINT16: ("H", "int_val"),
}  # fmt: skip
Specs = Mapping[str, tuple[str, list[int]]]


def saved_model(does: str, inputs: Specs, outputs: Specs | None = None) -> bytes:
    """Return a model of the stand-in: what it ``does``, and what it takes and gives."""
    return json.dumps({"does": does, "inputs": inputs, "outputs": outputs or inputs}).encode()


def write_bundle(path: Path, files: Mapping[str, bytes], **facts: str) -> Path:
    """Write a bundle for TensorFlow Serving, of files below its root."""
    said = {"format": 1, "name": "m", "version": "1", "backend": "tensorflow-serving", "root": "model", **facts}
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [from_bytes(f"model/{name}", data) for name, data in files.items()]
    with path.open("wb") as out:
        write_archive(out, [from_bytes("MARWAY-INF/bundle.json", json.dumps(said).encode()), *entries], lambda _: None)
    return path


class _Refused(Exception):
    def __init__(self, code: grpc.StatusCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


class _Model:
    def __init__(self, document: Mapping[str, Any]) -> None:
        self.does: str = document["does"]
        self.inputs: dict[str, Any] = document["inputs"]
        self.outputs: dict[str, Any] = document["outputs"]

    @property
    def signature(self) -> tf.SignatureDef:
        return tf.SignatureDef(
            inputs={name: _info(*spec) for name, spec in self.inputs.items()},
            outputs={name: _info(*spec) for name, spec in self.outputs.items()},
            method_name="tensorflow/serving/predict",
        )


class StandIn:
    """One server; used as a context manager it is gone afterwards.

    Attributes:
        grpc, url: Where it answers.
        lists: The names on each list of models that it was given.
        seen: What it was asked to predict.
    """

    def __init__(self) -> None:
        ports = free_ports(2)
        self.grpc = f"127.0.0.1:{ports[0]}"
        self.url = f"http://127.0.0.1:{ports[1]}"
        self._ports = ports
        self.lists: list[list[str]] = []
        self.seen: list[pb.PredictRequest] = []
        self._models: dict[tuple[str, int], _Model] = {}
        self._states: dict[tuple[str, int], int] = {}
        self._errors: dict[tuple[str, int], str] = {}
        self.takes_lists = True
        self._listed: set[str] | None = None
        self._changing = threading.Lock()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(24), options=[("grpc.so_reuseport", 0)])
        services.add_PredictionServiceServicer_to_server(_Predictions(self), self._server)  # type: ignore[no-untyped-call]
        services.add_ModelServiceServicer_to_server(_Models(self), self._server)  # type: ignore[no-untyped-call]
        assert self._server.add_insecure_port(self.grpc)
        self._server.start()
        handler = type("Handler", (_Rest,), {"server_": self})
        self._rest = ThreadingHTTPServer(("127.0.0.1", self._ports[1]), handler)
        threading.Thread(target=self._rest.serve_forever, args=(0.01,), daemon=True).start()

    def kill(self) -> None:
        """End it; what it had is lost."""
        self._server.stop(0).wait(10)
        self._rest.shutdown()
        self._rest.server_close()
        self._models, self._states, self._listed = {}, {}, None

    def add(self, name: str, version: int, model: bytes) -> None:
        """Have a model there that nobody loaded."""
        self._models[name, version] = _Model(json.loads(model))
        self._states[name, version] = pb.ModelVersionStatus.AVAILABLE

    # What the services do.

    def reload(self, config: pb.ModelServerConfig) -> None:
        if not self.takes_lists:
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, "Cannot transition to requested config.")
        if config.WhichOneof("config") != "model_config_list":
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, "Only ModelConfigList is currently supported")
        listed = {each.name: each for each in config.model_config_list.config}
        with self._changing:
            first, before = self._listed is None, self._listed or set()
            self.lists.append(sorted(listed))
            self._listed = set(listed)
            for key in [key for key in self._models if key[0] in before - listed.keys()]:
                del self._models[key]
                self._states[key] = pb.ModelVersionStatus.END
            failed = [problem for name in listed if name not in before for problem in self._load(listed[name])]
            if first and failed:
                self._listed = None  # it forgets its list, and would wait for ever for that model from now on
            if failed:
                text = f"{len(failed)} servable(s) did not become available: {{{', '.join(failed)}}}"
                raise _Refused(grpc.StatusCode.UNKNOWN, text)

    def _load(self, config: pb.ModelConfig) -> Iterator[str]:
        assert config.model_platform == "tensorflow"
        for version in config.model_version_policy.specific.versions:
            key = config.name, version
            try:
                document = json.loads((Path(config.base_path) / str(version) / "saved_model.pb").read_bytes())
                if document["does"] == "broken":
                    raise ValueError("it is broken")
            except (OSError, ValueError) as exc:
                self._states[key] = pb.ModelVersionStatus.END
                self._errors[key] = str(exc)
                yield f"name: {config.name} version: {version}"  # not all of its releases say why
                continue
            self._models[key] = _Model(document)
            self._states[key] = pb.ModelVersionStatus.AVAILABLE

    def states(self, name: str) -> list[pb.ModelVersionStatus]:
        found = [
            pb.ModelVersionStatus(version=version, state=state, status=self._health(name, version))  # type: ignore[arg-type]
            for (other, version), state in self._states.items()
            if other == name
        ]
        if not found:
            raise _Refused(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        return found

    def _health(self, name: str, version: int) -> pb.StatusProto:
        said = self._errors.get((name, version), "")
        return pb.StatusProto(error_code=5 if said else 0, error_message=said)  # type: ignore[arg-type]

    def model(self, spec: pb.ModelSpec) -> _Model:
        found = self._models.get((spec.name, spec.version.value))
        if found is None:
            text = f"Servable not found for request: Specific({spec.name}, {spec.version.value})"
            raise _Refused(grpc.StatusCode.NOT_FOUND, text)
        return found

    def predict(self, request: pb.PredictRequest) -> pb.PredictResponse:
        model = self.model(request.model_spec)
        self.seen.append(request)
        if request.model_spec.signature_name not in ("", "serving_default"):
            text = f'Serving signature key "{request.model_spec.signature_name}" not found.'
            raise _Refused(grpc.StatusCode.FAILED_PRECONDITION, text)
        if request.inputs.keys() != model.inputs.keys():
            text = f"input size does not match signature: {len(request.inputs)}!={len(model.inputs)}"
            raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, text)
        for name, tensor in request.inputs.items():
            if tf.DataType.Name(tensor.dtype) != model.inputs[name][0]:
                text = f"Expects arg[0] to be {model.inputs[name][0]} but {tf.DataType.Name(tensor.dtype)} is provided"
                raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, text)
        outputs = _outputs(model, dict(request.inputs))
        wanted = request.output_filter or list(outputs)
        for name in wanted:
            if name not in outputs:
                raise _Refused(grpc.StatusCode.INVALID_ARGUMENT, f"output tensor alias not found in signature: {name}")
        return pb.PredictResponse(model_spec=request.model_spec, outputs={name: outputs[name] for name in wanted})


def _outputs(model: _Model, inputs: dict[str, tf.TensorProto]) -> dict[str, tf.TensorProto]:
    if model.does == "say":
        said = [_said(text.decode()).encode() for text in inputs["text"].string_val]
        shape = inputs["text"].tensor_shape
        return {"text": tf.TensorProto(dtype=tf.DT_STRING, tensor_shape=shape, string_val=said)}
    if model.does == "echo raw":
        return inputs
    if model.does == "complex":
        return {"y": tf.TensorProto(dtype=tf.DT_COMPLEX64)}
    if model.does == "zeros":  # fewer values than the shape has
        return {"y": tf.TensorProto(dtype=tf.DT_FLOAT, tensor_shape=_shape([2, 3]), float_val=[0.5])}
    assert model.does == "echo", model.does
    return {name: _typed(tensor) for name, tensor in inputs.items()}


def _said(text: str) -> str:
    """Do what the contract suite asks for."""
    verb, _, rest = text.partition(" ")
    if verb == "fail":
        raise _Refused(grpc.StatusCode.INTERNAL, "on purpose")
    if verb in ("wait", "pieces"):
        deadline = time.monotonic() + 20
        while not Path(rest).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
    return {"wait": "waited", "pieces": "onetwo"}.get(verb, rest)


def _typed(tensor: tf.TensorProto) -> tf.TensorProto:
    """Return a tensor as the server writes it by default (`AsProtoField`)."""
    if tensor.dtype == tf.DT_STRING:
        return tensor
    code, field = _TYPED[tensor.dtype]
    content = tensor.tensor_content
    values = struct.unpack(f"<{len(content) // struct.calcsize(code)}{code}", content)
    made = tf.TensorProto(dtype=tensor.dtype, tensor_shape=tensor.tensor_shape)
    getattr(made, field).extend(values)
    return made


def _shape(sides: list[int]) -> tf.TensorShapeProto:
    return tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=side) for side in sides])


def _info(dtype: str, sides: list[int]) -> tf.TensorInfo:
    return tf.TensorInfo(name="x:0", dtype=tf.DataType.Value(dtype), tensor_shape=_shape(sides))


@contextlib.contextmanager
def _told(context: grpc.ServicerContext) -> Iterator[None]:
    try:
        yield
    except _Refused as exc:
        context.abort(exc.code, exc.text)


class _Predictions(services.PredictionServiceServicer):  # type: ignore[misc]  # generated
    def __init__(self, server: StandIn) -> None:
        self._server = server

    def Predict(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with _told(context):
            return self._server.predict(request)

    def GetModelMetadata(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with _told(context):
            model = self._server.model(request.model_spec)
            answer = pb.GetModelMetadataResponse(model_spec=request.model_spec)
            answer.metadata["signature_def"].Pack(
                pb.SignatureDefMap(signature_def={"serving_default": model.signature})
            )
            return answer


class _Models(services.ModelServiceServicer):  # type: ignore[misc]  # generated
    def __init__(self, server: StandIn) -> None:
        self._server = server

    def GetModelStatus(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with _told(context):
            return pb.GetModelStatusResponse(model_version_status=self._server.states(request.model_spec.name))

    def HandleReloadConfigRequest(self, request: Any, context: grpc.ServicerContext) -> Any:  # noqa: N802
        with _told(context):
            self._server.reload(request.config)
            return pb.ReloadConfigResponse(status=pb.StatusProto())


class _Rest(BaseHTTPRequestHandler):  # of HTTP/1.0: no connection is kept
    server_: StandIn

    def do_GET(self) -> None:
        self._answer(self._status if "/metadata" not in self.path else self._metadata)

    def do_POST(self) -> None:
        self._answer(self._predict)

    def log_message(self, *_: object) -> None:
        return

    def _answer(self, do: Any) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        try:
            status, document = 200, do(body)
        except _Refused as exc:
            status, document = {"NOT_FOUND": 404, "INTERNAL": 500}.get(exc.code.name, 400), {"error": exc.text}
        data = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _spec(self) -> pb.ModelSpec:
        found = re.match(r"/v1/models/([^/:]+)(?:/versions/(\d+))?", self.path)
        assert found is not None
        spec = pb.ModelSpec(name=found[1])
        spec.version.value = int(found[2] or 0)
        return spec

    def _status(self, _: bytes) -> Any:
        statuses = self.server_.states(self._spec().name)
        return json_format.MessageToDict(pb.GetModelStatusResponse(model_version_status=statuses))

    def _metadata(self, _: bytes) -> Any:
        spec = self._spec()
        signatures = pb.SignatureDefMap(signature_def={"serving_default": self.server_.model(spec).signature})
        return {
            "model_spec": {"name": spec.name, "version": str(spec.version.value)},
            "metadata": {"signature_def": json_format.MessageToDict(signatures, preserving_proto_field_name=True)},
        }

    def _predict(self, body: bytes) -> Any:
        document, spec = json.loads(body), self._spec()
        spec.signature_name = document.get("signature_name", "")
        model = self.server_.model(spec)
        inputs = {name: _from_json(value, model.inputs[name][0]) for name, value in document["inputs"].items()}
        response = self.server_.predict(pb.PredictRequest(model_spec=spec, inputs=inputs))
        outputs = {name: _to_json(tensor) for name, tensor in response.outputs.items()}
        return {"outputs": outputs if len(outputs) > 1 else next(iter(outputs.values()))}


def _from_json(value: Any, dtype: str) -> tf.TensorProto:
    number, sides, leaves = tf.DataType.Value(dtype), [], [value]
    while isinstance(leaves[0], list):
        sides.append(len(leaves[0]))
        leaves = [item for each in leaves for item in each]
    made = tf.TensorProto(dtype=number, tensor_shape=_shape(sides))
    if number == tf.DT_STRING:
        made.string_val.extend(base64.b64decode(v["b64"]) if isinstance(v, dict) else v.encode() for v in leaves)
    else:
        made.tensor_content = struct.pack(f"<{len(leaves)}{_TYPED[number][0]}", *leaves)
    return made


def _to_json(tensor: tf.TensorProto) -> Any:
    values: list[Any] = list(getattr(tensor, _TYPED[tensor.dtype][1] if tensor.dtype in _TYPED else "string_val"))
    if tensor.dtype == tf.DT_STRING:
        values = [v.decode() if v.isascii() else {"b64": base64.b64encode(v).decode()} for v in values]
    for side in reversed([dim.size for dim in tensor.tensor_shape.dim]):
        values = [values[at : at + side] for at in range(0, len(values), side)]
    return values[0]
