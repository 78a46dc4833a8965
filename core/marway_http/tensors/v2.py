"""What requests of the Open Inference Protocol hold in either form: inputs, wanted outputs, and parameters.

Parameters of a request, an input or an output that mean nothing here are refused by name: a caller who asks for a
priority or shared memory relies on it, and would take the answer for one that came about so. What reads a
request raises `InvalidRequest`, which says what is wrong and where.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from marway.errors import InvalidRequest, ModelError, clip
from marway.records import Signature, VersionRecord
from marway.wire.headers import SEQUENCE_END, SEQUENCE_ID, SEQUENCE_START
from marway_http.tensors.datatypes import Datatype, datatype_of
from marway_http.tensors.outputs import DEFAULT_OUTPUT
from marway_http.tensors.rows import check_inputs
from marway_http.tensors.tensor import Tensor, shape_of

__all__ = ["InferRequest", "WantedOutput", "check_sequence", "described", "infer_request", "picked", "wanted_output"]

_SEQUENCE: Final = ("sequence_id", "sequence_start", "sequence_end")
_OF_REQUEST: Final = ("binary_data_output", "timeout", *_SEQUENCE)
_OF_INPUT: Final = ("binary_data_size", "content_type")
_OF_OUTPUT: Final = ("binary_data",)

_NO_SHARED_MEMORY: Final = "send the data in the request"
_NOT_HERE: Final[Mapping[str, str]] = {
    "classification": "outputs are given whole; POST /v1/models/{model}:classify gives labels and scores",
    "priority": "requests for a version take turns by their callers",
    "shared_memory_byte_size": _NO_SHARED_MEMORY,
    "shared_memory_offset": _NO_SHARED_MEMORY,
    "shared_memory_region": _NO_SHARED_MEMORY,
}
_NOTHING: Final[Mapping[str, tuple[object, ...]]] = {
    "priority": (0,),
}
"""Values by which the protocol itself says that nothing is asked for."""
_MIME: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}(;[ A-Za-z0-9=._-]{1,60})?")


@dataclass(frozen=True, slots=True)
class WantedOutput:
    """An output that the caller asked for, and whether as binary; None leaves that to the request."""

    name: str
    binary: bool | None = None


@dataclass(frozen=True, slots=True)
class InferRequest:
    """One inference request.

    Attributes:
        inputs: Its tensors.
        id: The caller's own, given back.
        outputs: Those that the caller wants; none means all.
        binary: Whether outputs go back as binary where they say nothing.
        timeout_s: How long the caller waits, from when the request came; None leaves that to its headers.
        sequence: Headers that say which sequence it is of, and whether it begins or ends it; none where it is of none.
    """

    inputs: Sequence[Tensor]
    id: str | None = None
    outputs: Sequence[WantedOutput] = ()
    binary: bool = False
    timeout_s: float | None = None
    sequence: Mapping[str, str] = field(default_factory=dict)


def described(
    datatype: object, shape: object, parameters: Mapping[str, Any], *, where: str
) -> tuple[Datatype, tuple[int, ...], str | None]:
    """Return an input's datatype, its shape, and the MIME type of its elements where it is BYTES and names one."""
    _check_parameters(parameters, _OF_INPUT, where=where)
    known, content_type = datatype_of(datatype, where=where), None
    sides = shape_of(shape, where=where)
    told = parameters.get("content_type")
    # Without a slash it is a word of another server's, such as "str" or "np".
    if known.kind is bytes and isinstance(told, str) and "/" in told:
        if not _MIME.fullmatch(told):
            raise InvalidRequest(f"{where} has the content_type {clip(told, 100)!r}, which is no MIME type")
        content_type = told
    return known, sides, content_type


def wanted_output(name: str, parameters: Mapping[str, Any], *, where: str) -> WantedOutput:
    """Return the output that a request asks for."""
    _check_parameters(parameters, _OF_OUTPUT, where=where)
    return WantedOutput(name, _flag(parameters, "binary_data", where=where))


def infer_request(
    inputs: Sequence[Tensor],
    request_id: str | None,
    outputs: Sequence[WantedOutput],
    parameters: Mapping[str, Any],
    signature: Signature,
    *,
    binary: bool,
) -> InferRequest:
    """Return a request, whose inputs and outputs the signature has; ``binary`` where its parameters leave that open."""
    check_inputs(inputs, signature)
    _check_parameters(parameters, _OF_REQUEST, where="the request")
    asked = _flag(parameters, "binary_data_output", where="the request")
    known = [spec.name for spec in signature.outputs] or [DEFAULT_OUTPUT]
    for index, wanted in enumerate(outputs):
        if wanted.name not in known:
            raise InvalidRequest(f"the model has no output {clip(wanted.name, 100)!r}: it gives {', '.join(known)}")
        if any(wanted.name == earlier.name for earlier in outputs[:index]):
            raise InvalidRequest(f"the output {wanted.name!r} is asked for twice")
    microseconds = parameters.get("timeout")
    if microseconds is not None and (type(microseconds) is not int or microseconds < 0):
        raise InvalidRequest(
            f"the request has the timeout {clip(repr(microseconds), 40)}: give a whole number of microseconds, 0 for "
            "none"
        )
    timeout_s = microseconds / 1_000_000 if microseconds else None
    binary = binary if asked is None else asked
    return InferRequest(inputs, request_id, outputs, binary, timeout_s, _sequence(parameters))


def check_sequence(request: InferRequest, record: VersionRecord) -> Mapping[str, str]:
    """Return the headers that say which sequence a request is of.

    Raises:
        InvalidRequest: The version keeps none and the request is of one, or the other way round.
    """
    if request.sequence and record.sequences is None:
        raise InvalidRequest(
            "the request has the parameter sequence_id: that extension is not there; no state is kept from one "
            f"request of {record.name} {record.version} to the next; send each by itself"
        )
    if record.sequences is not None and not request.sequence:
        raise InvalidRequest(
            f"the request has no sequence_id, and {record.name} {record.version} keeps sequences: give one, and "
            "sequence_start with the first request"
        )
    return request.sequence


def _sequence(parameters: Mapping[str, Any]) -> dict[str, str]:
    name = parameters.get("sequence_id")
    start, end = (_flag(parameters, key, where="the request") for key in _SEQUENCE[1:])
    if name is not None and type(name) not in (int, str):
        raise InvalidRequest(f"the request has the sequence_id {clip(repr(name), 40)}: give a number or a text")
    if name in (None, 0, ""):  # by which the protocol itself says that it is of none
        if start or end:
            flag = _SEQUENCE[1] if start else _SEQUENCE[2]
            raise InvalidRequest(f"the request has the parameter {flag}, and no sequence_id")
        return {}
    told = {SEQUENCE_ID: str(name), SEQUENCE_START: "true" if start else "false"}
    return {**told, SEQUENCE_END: "true"} if end else told


def picked(
    outputs: Sequence[Tensor], wanted: Sequence[WantedOutput], record: VersionRecord
) -> list[tuple[Tensor, WantedOutput]]:
    """Return the outputs that were asked for, in that order; all when none was.

    Raises:
        ModelError: The handler did not give one of them.
    """
    if not wanted:
        return [(tensor, WantedOutput(tensor.name)) for tensor in outputs]
    named = {tensor.name: tensor for tensor in outputs}
    for each in wanted:
        if each.name not in named:
            raise ModelError(
                f"the handler's answer has no output {each.name!r}, which its signature promises",
                model=record.name,
                version=record.version,
            )
    return [(named[each.name], each) for each in wanted]


def _check_parameters(parameters: Mapping[str, Any], known: tuple[str, ...], *, where: str) -> None:
    """Return when all ``parameters`` are ``known`` or ask for nothing."""
    for name, value in parameters.items():
        if name in known or value is None or value in _NOTHING.get(name, ()):
            continue
        if name in _NOT_HERE:
            raise InvalidRequest(f"{where} has the parameter {name}: that extension is not there; {_NOT_HERE[name]}")
        raise InvalidRequest(
            f"{where} has the parameter {clip(name, 100)!r}, which has no effect here: leave it out; known are "
            f"{', '.join(known)}"
        )


def _flag(parameters: Mapping[str, Any], name: str, *, where: str) -> bool | None:
    """Return a parameter that is true or false; None where it is left out."""
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise InvalidRequest(f"{where} has a {name} that is neither true nor false")
    return value
