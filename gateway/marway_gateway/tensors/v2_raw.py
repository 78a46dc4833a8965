"""Raw binary requests of the Open Inference Protocol: a body that is the data of the version's one input, and no more.

Triton's extension (protocol/extension_binary_data.md): `Inference-Header-Content-Length: 0` says that there is no JSON,
so the input's name and datatype are the signature's, and its shape follows from the number of bytes. It is one row.
"""

from __future__ import annotations

import math

from marway.errors import InvalidRequest
from marway.records import Signature
from marway_gateway.tensors.datatypes import datatype_of
from marway_gateway.tensors.tensor import Tensor, shape_of

__all__ = ["raw_input"]


def raw_input(body: bytes, signature: Signature) -> Tensor:
    """Return the one input that a raw binary body is.

    Args:
        body: All of it. Of a BYTES input it is the one element, without its length.
        signature: What the version takes.

    Raises:
        InvalidRequest: The version takes no such request, or the body is no whole number of elements.
    """
    inputs = signature.inputs
    if len(inputs) != 1 or not inputs[0].shape:
        has = "no shape for its one input" if len(inputs) == 1 else f"{len(inputs) or 'no'} inputs"
        raise InvalidRequest(
            "Inference-Header-Content-Length is 0, which says that the body is the data of the version's one input; "
            f"this signature has {has}: give the number of bytes of the body's JSON, which says what the "
            "inputs are"
        )
    (spec,) = inputs
    where = f"input {spec.name!r}"
    datatype = datatype_of(spec.datatype, where=where)
    shape = [1 if spec.shape[0] == -1 else spec.shape[0], *spec.shape[1:]]
    if datatype.kind == "bytes":
        if math.prod(shape) != 1:
            raise _undetermined(where, spec.shape)
        return Tensor(spec.name, datatype, tuple(shape), [body])
    if shape.count(-1) > 1:
        raise _undetermined(where, spec.shape)
    if -1 in shape:
        each = math.prod(side for side in shape if side != -1) * datatype.size
        shape[shape.index(-1)] = len(body) // each if each else 0
    values = datatype.unpack(body, count=math.prod(shape_of(shape, where=where)), where=where)
    return Tensor(spec.name, datatype, tuple(shape), values)


def _undetermined(where: str, shape: tuple[int, ...]) -> InvalidRequest:
    return InvalidRequest(
        f"{where} takes the shape {list(shape)}, which the number of bytes in a raw binary request does not settle: "
        "send its shape as JSON before the tensor"
    )
