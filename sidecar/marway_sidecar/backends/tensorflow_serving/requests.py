"""Rows as TensorFlow Serving's predict requests, and its responses as answers.

An Open Inference request is one such request, with its tensors as they lie; any other row is made one by what the
server says of the model.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, cast

from marway.answers.encoding import Nonfinite, answer_json
from marway.errors import InvalidRequest, ModelError, Unimplemented, clip
from marway.records import Signature
from marway.wire.envelope import Answer, Row
from marway.wire.headers import JSON_NONFINITE
from marway_http.message_fields import parted
from marway_http.proto import open_inference_pb2 as v2
from marway_http.tensors.datatypes import datatype_of
from marway_http.tensors.plain_rows import plain_answer, tensors_of_row, value_of_outputs
from marway_http.tensors.rows import JSON, OCTETS
from marway_http.tensors.tensor import Tensor
from marway_http.tensors.v2_bodies import may_be_request
from marway_http.tensors.v2_parameters import OutputForms, plain_parameters
from marway_http.tensors.v2_to_message import header_length_of, message_of_request
from marway_http.tensors.v2_to_rest import rest_of_response
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_pb2 as tf
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_serving_pb2 as pb
from marway_sidecar.backends.tensorflow_serving.tensors import RawTensor, proto_of, raw_of, signature_of

__all__ = ["DEFAULT_SIGNATURE", "Asked", "Served", "asked_by", "description", "wants_description"]

DEFAULT_SIGNATURE: Final = "serving_default"
_SIGNATURE_NAME: Final = "signature_name"
_LENGTH: Final = "inference-header-content-length"
_RAW_INPUTS: Final = v2.ModelInferRequest.DESCRIPTOR.fields_by_name["raw_input_contents"].number


@dataclass(frozen=True, slots=True)
class Served:
    """A version as the server has it.

    Attributes:
        name: The model's name there.
        number: The version's number there.
        signatures: By their names, as far as the server told them.
    """

    name: str
    number: int
    signatures: Mapping[str, tf.SignatureDef] = field(default_factory=dict)

    @property
    def spec(self) -> pb.ModelSpec:
        """How the server is told which it is."""
        spec = pb.ModelSpec(name=self.name)
        spec.version.value = self.number
        return spec

    def takes(self, name: str = DEFAULT_SIGNATURE) -> Signature:
        """Return what a signature takes and gives, as far as that is known."""
        return signature_of(self.signatures[name]) if name in self.signatures else Signature()


@dataclass(frozen=True, slots=True)
class Asked:
    """A row as a request, and how its response becomes an answer.

    Attributes:
        request: What the server is sent.
        row: What it came from.
        forms: In which form an Open Inference caller wants the outputs; None of any other row.
        id: That caller's own, given back.
        alone: Whether any other row was made a batch of one.
    """

    request: pb.PredictRequest
    row: Row
    forms: OutputForms | None = None
    id: str = ""
    alone: bool = False

    def answer(self, response: pb.PredictResponse, model: ServedModel) -> Answer:
        """Return the answer.

        Raises:
            ModelError: An output is of a datatype that the protocol has not, or was asked for and is not there.
        """
        outputs = self._outputs(response)
        if self.forms is None:
            return _plain(value_of_outputs([_tensor(each) for each in outputs], alone=self.alone), self.row)
        message = v2.ModelInferResponse(id=self.id)
        for each in outputs:
            message.outputs.add(name=each.name, datatype=each.datatype.name, shape=each.shape)
            message.raw_output_contents.append(bytes(each.data))
        body = rest_of_response(message.SerializeToString(), self.forms, name=model.name, version=model.version)
        if body.header_length is None:
            return Answer(200, body.body, "json", JSON)
        return Answer(200, body.body, "bytes", OCTETS, {_LENGTH: str(body.header_length)})

    def _outputs(self, response: pb.PredictResponse) -> list[RawTensor]:
        wanted: Sequence[str] = self.request.output_filter or sorted(response.outputs)
        missing = [name for name in wanted if name not in response.outputs]
        if missing:
            raise ModelError(f"the answer has no output {missing[0]!r}")
        return [raw_of(name, response.outputs[name]) for name in wanted]


def wants_description(row: Row) -> bool:
    """Return whether a row asks what the model takes."""
    return row.headers.get("describe") == "True"


def description(served: Served) -> Answer:
    """Return what a version takes and gives by its usual signature, as the gateway asks for it."""
    takes = served.takes()
    document = {kind: [spec.model_dump() for spec in getattr(takes, kind)] for kind in ("inputs", "outputs")}
    return Answer(200, json.dumps(document).encode(), "json", JSON)


def asked_by(row: Row, served: Served) -> Asked:
    """Return the request that a row is.

    Raises:
        InvalidRequest: It is none that the version takes.
        Unimplemented: It asks for an explanation.
    """
    if row.explains:
        raise Unimplemented("TensorFlow Serving has no explanations")
    if _has_tensors(row):
        return _passed(row, served)
    takes = served.takes().inputs
    if not takes:
        raise InvalidRequest("TensorFlow Serving does not say what the model takes: send an Open Inference request")
    found = tensors_of_row(row, takes)
    inputs = {each.name: proto_of(_raw(each)) for each in found.tensors}
    request = pb.PredictRequest(model_spec=served.spec, inputs=inputs)
    return Asked(request, row, alone=found.alone)


def _has_tensors(row: Row) -> bool:
    """Return whether a row's body is an Open Inference request, in JSON or binary."""
    if not row.is_raw:
        return False
    return _LENGTH in row.headers or may_be_request(row.parts[0].value)


def _plain(value: Any, row: Row) -> Answer:
    nonfinite = cast("Nonfinite", row.headers.get(JSON_NONFINITE, "error"))
    try:
        return plain_answer(value, partial(answer_json, nonfinite=nonfinite))
    except ValueError as exc:
        raise ModelError(f"the answer cannot be JSON: {exc}; ask for binary outputs over v2") from exc


def _passed(row: Row, served: Served) -> Asked:
    body = bytes(row.parts[0].value)
    length = header_length_of(row.headers.get(_LENGTH), body)
    message, forms = message_of_request(body, length, name=served.name, signature=served.takes())
    head, raw = parted(message, _RAW_INPUTS)
    asked = v2.ModelInferRequest.FromString(head)
    spec = served.spec
    for name, value in _given(asked.parameters).items():
        if name != _SIGNATURE_NAME or not isinstance(value, str):
            raise _no_effect(name, "the request", f"known is {_SIGNATURE_NAME}")
        spec.signature_name = value
    inputs: dict[str, tf.TensorProto] = {}
    for each, data in zip(asked.inputs, raw, strict=True):
        where = f"input {clip(each.name, 100)!r}"
        for name in _given(each.parameters):
            raise _no_effect(name, where, "an input of TensorFlow Serving has none")
        if each.name in inputs:
            raise InvalidRequest(f"{where} is there twice")
        inputs[each.name] = proto_of(
            RawTensor(each.name, datatype_of(each.datatype, where=where), tuple(each.shape), data)
        )
    wanted = []
    for output in asked.outputs:
        where = f"output {clip(output.name, 100)!r}"
        for name in _given(output.parameters):
            raise _no_effect(name, where, "known is binary_data")
        wanted.append(output.name)
    request = pb.PredictRequest(model_spec=spec, inputs=inputs, output_filter=wanted)
    return Asked(request, row, forms, asked.id)


def _given(parameters: Any) -> dict[str, Any]:
    return {name: value for name, value in plain_parameters(parameters).items() if value is not None}


def _no_effect(name: str, where: str, known: str) -> InvalidRequest:
    return InvalidRequest(
        f"{where} has the parameter {clip(name, 100)!r}, which has no effect here: leave it out; {known}"
    )


def _raw(tensor: Tensor) -> RawTensor:
    return RawTensor(tensor.name, tensor.datatype, tensor.shape, tensor.datatype.pack(tensor.values))


def _tensor(raw: RawTensor) -> Tensor:
    values = raw.datatype.unpack(raw.data, count=math.prod(raw.shape), where=raw.name)
    return Tensor(raw.name, raw.datatype, raw.shape, values)
