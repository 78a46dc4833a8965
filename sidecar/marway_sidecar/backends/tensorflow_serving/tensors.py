"""Between TensorFlow's tensors and those of the Open Inference Protocol: datatype, shape and the bytes of all values.

Both have numbers little-endian and row-major, so they are passed on as they lie. Only strings differ, which are fields
of their own here, and what a server writes into typed fields.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from marway.errors import InvalidRequest, ModelError
from marway.records import Signature, TensorSpec
from marway_http.tensors.datatypes import BYTES, DATATYPES, Datatype
from marway_sidecar.backends.tensorflow_serving.proto import tensorflow_pb2 as tf

__all__ = ["RawTensor", "datatype_named", "proto_of", "raw_of", "signature_of"]

_DTYPES: Final[Mapping[str, int]] = {
    "BF16": tf.DT_BFLOAT16,
    "BOOL": tf.DT_BOOL,
    "BYTES": tf.DT_STRING,
    "FP16": tf.DT_HALF,
    "FP32": tf.DT_FLOAT,
    "FP64": tf.DT_DOUBLE,
    "INT16": tf.DT_INT16,
    "INT32": tf.DT_INT32,
    "INT64": tf.DT_INT64,
    "INT8": tf.DT_INT8,
    "UINT16": tf.DT_UINT16,
    "UINT32": tf.DT_UINT32,
    "UINT64": tf.DT_UINT64,
    "UINT8": tf.DT_UINT8,
}
_DATATYPES: Final = {dtype: DATATYPES[name] for name, dtype in _DTYPES.items()}
_FIELDS: Final[Mapping[str, str]] = {
    "BF16": "half_val",
    "BOOL": "bool_val",
    "FP16": "half_val",
    "FP32": "float_val",
    "FP64": "double_val",
    "INT64": "int64_val",
    "UINT32": "uint32_val",
    "UINT64": "uint64_val",
}
"""Where values are that are not in `tensor_content`; other integers are in `int_val`."""
_HALVES: Final = ("BF16", "FP16")


class RawTensor(NamedTuple):
    """A named tensor with the bytes of its values, as the Open Inference Protocol has them."""

    name: str
    datatype: Datatype
    shape: tuple[int, ...]
    data: bytes | memoryview


def datatype_named(dtype: int) -> Datatype | None:
    """Return the datatype that stands for one of TensorFlow's; None where there is none."""
    return _DATATYPES.get(dtype)


def proto_of(tensor: RawTensor) -> tf.TensorProto:
    """Return a tensor as TensorFlow has it.

    Raises:
        InvalidRequest: Its bytes are not as many as its shape has.
    """
    where, count = f"input {tensor.name!r}", math.prod(tensor.shape)
    shape = tf.TensorShapeProto(dim=[tf.TensorShapeProto.Dim(size=side) for side in tensor.shape])
    dtype: Any = _DTYPES[tensor.datatype.name]
    if tensor.datatype is BYTES:
        values = BYTES.unpack(tensor.data, count=count, where=where)
        return tf.TensorProto(dtype=dtype, tensor_shape=shape, string_val=[v for v in values if isinstance(v, bytes)])
    if len(tensor.data) != count * tensor.datatype.size:
        raise InvalidRequest(
            f"{where} has {len(tensor.data)} bytes: {count} elements of {tensor.datatype.name} have "
            f"{count * tensor.datatype.size}"
        )
    return tf.TensorProto(dtype=dtype, tensor_shape=shape, tensor_content=bytes(tensor.data))


def raw_of(name: str, proto: tf.TensorProto) -> RawTensor:
    """Return an output with the bytes of its values.

    Raises:
        ModelError: Its datatype is none that the protocol has, or it is not whole.
    """
    datatype = datatype_named(proto.dtype)
    if datatype is None:
        kind = tf.DataType.Name(proto.dtype) if proto.dtype in tf.DataType.values() else str(proto.dtype)
        raise ModelError(f"the output {name!r} is {kind}, for which the Open Inference Protocol has no datatype")
    shape = tuple(dim.size for dim in proto.tensor_shape.dim)
    count = math.prod(shape)
    if datatype is BYTES:
        return RawTensor(name, datatype, shape, BYTES.pack(_filled(name, list(proto.string_val), count)))
    if proto.tensor_content:
        if len(proto.tensor_content) != count * datatype.size:
            raise ModelError(f"the output {name!r} has {len(proto.tensor_content)} bytes, and its shape {list(shape)}")
        return RawTensor(name, datatype, shape, proto.tensor_content)
    values = _filled(name, list(getattr(proto, _FIELDS.get(datatype.name, "int_val"))), count)
    try:
        # Halves are written as their bits.
        data = struct.pack(f"<{count}H", *values) if datatype.name in _HALVES else datatype.pack(values)
    except struct.error as exc:
        raise ModelError(f"the output {name!r} holds what is none of {datatype.name}: {exc}") from exc
    return RawTensor(name, datatype, shape, data)


def signature_of(signature: tf.SignatureDef) -> Signature:
    """Return what a signature takes and gives, in its names' order; what the protocol cannot carry stays out.

    A shape of unknown rank is left open.
    """
    return Signature(inputs=_specs(signature.inputs), outputs=_specs(signature.outputs))


def _specs(infos: Mapping[str, tf.TensorInfo]) -> tuple[TensorSpec, ...]:
    found = []
    for name in sorted(infos):
        datatype = datatype_named(infos[name].dtype)
        if datatype is not None:
            shape = tuple(dim.size for dim in infos[name].tensor_shape.dim)
            found.append(TensorSpec(name=name, datatype=datatype.name, shape=shape))
    return tuple(found)


def _filled(name: str, values: Sequence[Any], count: int) -> Sequence[Any]:
    """Return all values of an output: of fewer than its shape has, the last one stands for the rest."""
    if len(values) < count and values:
        return [*values, *[values[-1]] * (count - len(values))]
    if len(values) != count:
        raise ModelError(f"the output {name!r} has {len(values)} values, and its shape has {count}")
    return values
