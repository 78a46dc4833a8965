"""TensorFlow Serving's REST API, for a server that somebody else manages and whose gRPC port is not to be had.

Tensors are JSON there, in columns (`inputs`); it says datatypes in the model's metadata alone.
"""

from __future__ import annotations

import base64
import json
import math
from typing import Any, Final
from urllib.parse import quote

import httpx
from google.protobuf import json_format

from marway.errors import ModelError, RuntimeDown, Unimplemented, clip
from marway_http.tensors.datatypes import Datatype
from marway_http.tensors.rows import is_b64
from marway_http.tensors.tensor import common_shape, leaves_of, nested
from marway_sidecar.backends.base import NotSent
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_pb2 as tf
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.tensors import RawTensor, datatype_named, proto_of, raw_of
from marway_sidecar.backends.tensorflow_serving.transport import SIGNATURES, Failed

__all__ = ["RestTransport"]

_CODES: Final = {
    400: "INVALID_ARGUMENT",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    412: "FAILED_PRECONDITION",
    429: "RESOURCE_EXHAUSTED",
    501: "UNIMPLEMENTED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
"""What the server makes of its own codes, backwards."""


class RestTransport:
    """The REST API of one server.

    Args:
        url: Such as http://127.0.0.1:8501.
    """

    def __init__(self, url: str) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        # Reading all certificates that the machine trusts holds the event loop for 20 ms.
        verify = url.startswith("https:")
        self._client = httpx.AsyncClient(base_url=url, trust_env=False, verify=verify, limits=limits)

    async def predict(
        self, request: pb.PredictRequest, signature: tf.SignatureDef | None, *, timeout_s: float
    ) -> pb.PredictResponse:
        if signature is None:
            raise Failed("FAILED_PRECONDITION", "the server's metadata has no such signature")
        document: dict[str, Any] = {
            "inputs": {name: _value(raw_of(name, tensor)) for name, tensor in request.inputs.items()}
        }
        if request.model_spec.signature_name:
            document["signature_name"] = request.model_spec.signature_name
        body = json.dumps(document, separators=(",", ":"))
        path = f"{_path(request.model_spec)}:predict"
        outputs = await self._asked("POST", path, timeout_s, content=body)
        found = outputs.get("outputs")
        # Of one output, it gives the value alone.
        one = len(signature.outputs) == 1
        named = dict.fromkeys(signature.outputs, found) if one or not isinstance(found, dict) else found
        return pb.PredictResponse(outputs={name: _proto(name, value, signature) for name, value in named.items()})

    async def signatures(self, spec: pb.ModelSpec, *, timeout_s: float) -> pb.SignatureDefMap:
        document = await self._asked("GET", f"{_path(spec)}/metadata", timeout_s)
        try:
            said = document["metadata"][SIGNATURES]
            return json_format.ParseDict(said, pb.SignatureDefMap(), ignore_unknown_fields=True)
        except (KeyError, TypeError, json_format.ParseError) as exc:
            raise Failed("INTERNAL", f"its metadata cannot be read: {exc!r}") from exc

    async def status(self, name: str, *, timeout_s: float) -> list[pb.ModelVersionStatus]:
        try:
            document = await self._asked("GET", f"/v1/models/{quote(name, safe='')}", timeout_s)
        except Failed as exc:
            if exc.code == "NOT_FOUND":
                return []
            raise
        try:
            answer = json_format.ParseDict(document, pb.GetModelStatusResponse(), ignore_unknown_fields=True)
        except json_format.ParseError as exc:
            raise Failed("INTERNAL", f"its status cannot be read: {exc}") from exc
        return list(answer.model_version_status)

    async def reload(self, config: pb.ModelConfigList, *, timeout_s: float) -> None:
        raise Unimplemented("TensorFlow Serving takes another list of models over gRPC alone")

    async def aclose(self) -> None:
        await self._client.aclose()

    async def _asked(self, method: str, path: str, timeout_s: float, **options: Any) -> dict[str, Any]:
        try:
            answer = await self._client.request(method, path, timeout=timeout_s, **options)
        except httpx.ConnectTimeout as exc:
            raise NotSent(f"TensorFlow Serving does not answer: {exc}") from exc
        except httpx.TimeoutException as exc:
            raise Failed("DEADLINE_EXCEEDED", "it did not answer in time") from exc
        except httpx.TransportError as exc:
            kind = NotSent if isinstance(exc, httpx.ConnectError) else RuntimeDown
            raise kind(f"TensorFlow Serving does not answer: {exc}") from exc
        except RuntimeError as exc:
            if self._client.is_closed:  # it says so in no kind of its own
                raise RuntimeDown("TensorFlow Serving went down as the call was made") from exc
            raise
        try:
            document = json.loads(answer.content)
        except (ValueError, RecursionError):
            document = None
        if answer.status_code == httpx.codes.OK and isinstance(document, dict):
            return document
        said = document.get("error") if isinstance(document, dict) else None
        text = str(said) if said is not None else clip(answer.text, 300)
        raise Failed(_CODES.get(answer.status_code, "INTERNAL"), text or f"status {answer.status_code}")


def _path(spec: pb.ModelSpec) -> str:
    return f"/v1/models/{quote(spec.name, safe='')}/versions/{spec.version.value}"


def _value(tensor: RawTensor) -> Any:
    """Return a tensor as JSON; bytes that are no text as the server has them."""
    values = tensor.datatype.unpack(tensor.data, count=math.prod(tensor.shape), where=tensor.name)
    return nested([_element(value) for value in values], tensor.shape)


def _element(value: Any) -> Any:
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def _proto(name: str, value: Any, signature: tf.SignatureDef) -> tf.TensorProto:
    datatype = datatype_named(signature.outputs[name].dtype) if name in signature.outputs else None
    shape = common_shape(value) if isinstance(value, list) else ()
    if datatype is None or shape is None:
        raise ModelError(f"the server's output {name!r} cannot be read: its metadata does not say what it is")
    leaves = list(leaves_of(value, len(shape))) if isinstance(value, list) else [value]
    data = datatype.pack([_converted(each, datatype, name) for each in leaves])
    return proto_of(RawTensor(name, datatype, shape, data))


def _converted(value: Any, datatype: Datatype, name: str) -> Any:
    try:
        if datatype.kind is bytes:
            return base64.b64decode(value["b64"]) if is_b64(value) else value.encode()
        return datatype.kind(value)
    except (TypeError, ValueError, AttributeError) as exc:
        raise ModelError(f"the server's output {name!r} holds {clip(repr(value), 60)}, no {datatype.name}") from exc
