"""What v1's requests and answers hold, for OpenAPI and for metadata."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from marway.records import TensorSpec, VersionRecord
from marway_gateway.json_models import JsonModel, JsonValue, examples
from marway_http.tensors.v1 import DEFAULT_SIGNATURE

__all__ = [
    "V1Examples",
    "V1Metadata",
    "V1Request",
    "V1Response",
    "V1Results",
    "V1Status",
    "V1VersionStatus",
    "v1_metadata_of",
]

_DTYPES: Final = {
    "BOOL": "DT_BOOL",
    "BYTES": "DT_STRING",
    "FP16": "DT_HALF",
    "BF16": "DT_BFLOAT16",
    "FP32": "DT_FLOAT",
    "FP64": "DT_DOUBLE",
}
"""TensorFlow's names; integers are called DT_ and what they are called here."""


class V1Request(JsonModel):
    """Rows, or columns: `instances` or `inputs`."""

    model_config = examples(
        {"instances": ["wake me at seven", "tell me a joke"]},
        {"inputs": {"text": ["wake me at seven"]}, "signature_name": "serving_default"},
    )

    signature_name: Literal["", "serving_default"] | None = Field(default=None, description="A model has this one.")
    instances: list[JsonValue] | None = Field(default=None, description="A value for each row.")
    inputs: JsonValue = Field(
        default=None,
        description="A list of one value a row, or such a list for each named input; without lists they are one row.",
    )


class V1Response(JsonModel):
    """`predictions` to instances, `outputs` to columns."""

    model_config = examples({"predictions": [{"label": "set_alarm", "score": 0.98}]})

    predictions: list[JsonValue] | None = Field(default=None, description="A value for each row.")
    outputs: JsonValue = Field(
        default=None, description="A list of one value a row, or such a list for each named output, as the inputs came."
    )


class V1VersionError(JsonModel):
    """What TensorFlow Serving says when all is well."""

    error_code: Literal["OK"] = "OK"
    error_message: Literal[""] = ""


class V1VersionStatus(JsonModel):
    """One version that can be asked."""

    version: str
    state: Literal["AVAILABLE"] = "AVAILABLE"
    status: V1VersionError = V1VersionError()


class V1Status(JsonModel):
    """A model that can be asked, in KServe's words (`ready`) and in TensorFlow Serving's."""

    model_config = examples(
        {
            "name": "intent",
            "ready": True,
            "model_version_status": [
                {"version": "1.0", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
            ],
        }
    )

    name: str
    ready: Literal[True] = True
    model_version_status: list[V1VersionStatus]


class V1Examples(JsonModel):
    """Rows of named features."""

    model_config = examples({"examples": [{"text": "wake me at seven"}, {"text": "tell me a joke"}]})

    signature_name: Literal["", "serving_default"] | None = Field(default=None, description="A model has this one.")
    context: dict[str, JsonValue] | None = Field(default=None, description="Features that all examples have.")
    examples: list[dict[str, JsonValue]] = Field(description="The features of each row.")


class V1Results(JsonModel):
    """Of each row the pairs of label and score, or one number."""

    model_config = examples({"results": [[["set_alarm", 0.98]]]})

    results: list[JsonValue]


class V1ModelSpec(JsonModel):
    """Which version is meant."""

    name: str
    signature_name: Literal[""] = ""
    version: str


class V1Dimension(JsonModel):
    """One dimension; -1 is any size. TensorFlow writes 64-bit numbers as texts."""

    size: str
    name: Literal[""] = ""


class V1Shape(JsonModel):
    """A tensor's shape."""

    dim: tuple[V1Dimension, ...]
    unknown_rank: bool


class V1Tensor(JsonModel):
    """One input or output."""

    dtype: str
    tensor_shape: V1Shape
    name: str


class V1Signature(JsonModel):
    """What a version takes and gives."""

    inputs: dict[str, V1Tensor]
    outputs: dict[str, V1Tensor]
    method_name: Literal["tensorflow/serving/predict"] = "tensorflow/serving/predict"


class V1SignatureDef(JsonModel):
    """A version's signatures by name."""

    signature_def: dict[str, V1Signature]


class V1MetadataParts(JsonModel):
    """The one kind of metadata that there is."""

    signature_def: V1SignatureDef


class V1Metadata(JsonModel):
    """What a version takes and gives, as TensorFlow Serving tells it (`GetModelMetadataResponse`)."""

    model_config = examples(
        {
            "model_spec": {"name": "intent", "signature_name": "", "version": "1.0"},
            "metadata": {
                "signature_def": {
                    "signature_def": {
                        "serving_default": {
                            "inputs": {
                                "text": {
                                    "dtype": "DT_STRING",
                                    "tensor_shape": {
                                        "dim": [{"size": "-1", "name": ""}],
                                        "unknown_rank": False,
                                    },
                                    "name": "text:0",
                                }
                            },
                            "outputs": {},
                            "method_name": "tensorflow/serving/predict",
                        }
                    }
                }
            },
        }
    )

    model_spec: V1ModelSpec
    metadata: V1MetadataParts


def v1_metadata_of(record: VersionRecord) -> V1Metadata:
    """Return what the protocol tells of a version."""

    def told(specs: tuple[TensorSpec, ...]) -> dict[str, V1Tensor]:
        return {
            spec.name: V1Tensor(
                dtype=_DTYPES.get(spec.datatype, f"DT_{spec.datatype}"),
                tensor_shape=V1Shape(
                    dim=tuple(V1Dimension(size=str(side)) for side in spec.shape), unknown_rank=not spec.shape
                ),
                name=f"{spec.name}:0",
            )
            for spec in specs
        }

    signature = V1Signature(inputs=told(record.signature.inputs), outputs=told(record.signature.outputs))
    return V1Metadata(
        model_spec=V1ModelSpec(name=record.name, version=record.version),
        metadata=V1MetadataParts(signature_def=V1SignatureDef(signature_def={DEFAULT_SIGNATURE: signature})),
    )
