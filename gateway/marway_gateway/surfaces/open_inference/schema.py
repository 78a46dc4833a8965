"""What the Open Inference Protocol's requests and answers hold, for OpenAPI and for metadata."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from marway import __version__
from marway.records import TensorSpec, VersionRecord
from marway_gateway.json_models import JsonModel, examples

__all__ = [
    "EXTENSIONS",
    "Elements",
    "InferInput",
    "InferOutput",
    "InferParameters",
    "InferRequestBody",
    "InferResponseBody",
    "ModelMetadata",
    "ModelReady",
    "OutputTensor",
    "ServerLive",
    "ServerMetadata",
    "ServerReady",
    "TensorMetadata",
    "metadata_of",
]

EXTENSIONS: Final = ("binary_tensor_data",)

Elements = TypeAliasType("Elements", "list[bool | int | float | str | Elements]")
"""A tensor's values, flat or nested."""


class ServerLive(JsonModel):
    """The process runs."""

    model_config = examples({"live": True})

    live: Literal[True] = True


class ServerReady(JsonModel):
    """It can serve; when it cannot, the answer is an error that says why."""

    model_config = examples({"ready": True})

    ready: Literal[True] = True


class ModelReady(JsonModel):
    """The version can be asked; a pod loads it when it has not yet. When it cannot, the answer is an error."""

    model_config = examples({"name": "intent", "version": "1.0", "ready": True})

    name: str
    version: str
    ready: Literal[True] = True


class ServerMetadata(JsonModel):
    """What answers."""

    model_config = examples({"name": "marway", "version": "0.1.0", "extensions": ["binary_tensor_data"]})

    name: str = "marway"
    version: str = __version__
    extensions: tuple[str, ...] = EXTENSIONS


class TensorMetadata(JsonModel):
    """One input or output."""

    name: str
    datatype: str
    shape: tuple[int, ...] = Field(description="The first dimension is the number of rows; -1 is any number.")


class ModelMetadata(JsonModel):
    """What a version takes and gives, by its signature; with no signature both are empty, and any input is taken."""

    model_config = examples(
        {
            "name": "intent",
            "versions": ["1.0", "1.1"],
            "platform": "pytorch_torchserve",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [{"name": "prediction", "datatype": "BYTES", "shape": [-1]}],
        }
    )

    name: str
    versions: tuple[str, ...] = Field(description="Those that are not deleted.")
    platform: str = Field(description="Framework and model server.")
    inputs: tuple[TensorMetadata, ...]
    outputs: tuple[TensorMetadata, ...]


class InferParameters(JsonModel):
    """Parameters of a tensor or of a request; others are refused by name."""

    binary_data_size: int | None = Field(default=None, ge=0, description="Bytes of the tensor behind the JSON.")
    binary_data: bool | None = Field(default=None, description="Of an output: whether it comes as binary.")
    binary_data_output: bool | None = Field(default=None, description="Of the request: the same, for all outputs.")
    timeout: int | None = Field(
        default=None, ge=0, description="Of the request: microseconds until its deadline; 0 for none of its own."
    )
    content_type: str | None = Field(
        default=None, description="Of BYTES: `base64` where strings are that, or the MIME type of the elements."
    )


class InferInput(JsonModel):
    """One input tensor."""

    name: str
    shape: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)
    datatype: str
    parameters: InferParameters | None = None
    data: Elements | None = Field(
        default=None, description="Row-major, flat or nested as the shape says; left out where it is binary."
    )


class InferOutput(JsonModel):
    """One output that is wanted."""

    name: str
    parameters: InferParameters | None = None


class InferRequestBody(JsonModel):
    """An inference request."""

    model_config = examples(
        {
            "id": "42",
            "inputs": [
                {
                    "name": "text",
                    "shape": [2],
                    "datatype": "BYTES",
                    "data": ["wake me at seven", "tell me a joke"],
                }
            ],
        }
    )

    id: str | None = Field(default=None, description="Given back.")
    parameters: InferParameters | None = None
    inputs: list[InferInput] = Field(min_length=1)
    outputs: list[InferOutput] | None = Field(default=None, description="Those that are wanted; all when left out.")


class OutputTensor(JsonModel):
    """One output tensor."""

    name: str
    datatype: str
    shape: list[int]
    parameters: InferParameters | None = None
    data: list[bool | int | float | str] | None = Field(default=None, description="Row-major and flat.")


class InferResponseBody(JsonModel):
    """What the version answers."""

    model_config = examples(
        {
            "model_name": "intent",
            "model_version": "1.0",
            "id": "42",
            "outputs": [
                {
                    "name": "prediction",
                    "datatype": "BYTES",
                    "shape": [2],
                    "data": ['{"label": "set_alarm"}', '{"label": "tell_joke"}'],
                }
            ],
        }
    )

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def metadata_of(record: VersionRecord, versions: tuple[str, ...]) -> ModelMetadata:
    """Return what the protocol tells of a version."""

    def told(specs: tuple[TensorSpec, ...]) -> tuple[TensorMetadata, ...]:
        return tuple(TensorMetadata(name=spec.name, datatype=spec.datatype, shape=spec.shape) for spec in specs)

    return ModelMetadata(
        name=record.name,
        versions=versions,
        platform="_".join(part for part in (record.framework, record.backend) if part),
        inputs=told(record.signature.inputs),
        outputs=told(record.signature.outputs),
    )
