"""Parameters of the Open Inference Protocol, of a request, an input or an output: those that mean something here.

All others are refused by name. A caller who asks for a sequence, a priority or shared memory relies on it, and would
take the answer for one that came about so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from marway.errors import InvalidRequest, clip

__all__ = ["OF_INPUT", "OF_OUTPUT", "OF_REQUEST", "check_parameters", "element_type", "flag_of", "timeout_of"]

OF_REQUEST: Final = ("binary_data_output", "timeout")
OF_INPUT: Final = ("binary_data_size", "content_type")
OF_OUTPUT: Final = ("binary_data",)

_NO_SEQUENCES: Final = "no state is kept from one request to the next; send each by itself"
_NO_SHARED_MEMORY: Final = "send the data in the request"
_NOT_HERE: Final[Mapping[str, str]] = {
    "classification": "outputs are given whole; POST /v1/models/{model}:classify gives labels and scores",
    "priority": "requests for a version take turns by their callers",
    "sequence_end": _NO_SEQUENCES,
    "sequence_id": _NO_SEQUENCES,
    "sequence_start": _NO_SEQUENCES,
    "shared_memory_byte_size": _NO_SHARED_MEMORY,
    "shared_memory_offset": _NO_SHARED_MEMORY,
    "shared_memory_region": _NO_SHARED_MEMORY,
}
_NOTHING: Final[Mapping[str, tuple[object, ...]]] = {
    "priority": (0,),
    "sequence_end": (False,),
    "sequence_id": (0, ""),
    "sequence_start": (False,),
}
"""Values by which the protocol itself says that nothing is asked for."""
_MIME: Final = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,60}/[A-Za-z0-9!#$&^_.+-]{1,60}(;[ A-Za-z0-9=._-]{1,60})?")


def check_parameters(parameters: Mapping[str, Any], known: tuple[str, ...], *, where: str) -> None:
    """Return when all ``parameters`` are ``known`` or ask for nothing.

    Raises:
        InvalidRequest: One does; the message names it.
    """
    for name, value in parameters.items():
        if name in known or value is None or value in _NOTHING.get(name, ()):
            continue
        if name in _NOT_HERE:
            raise InvalidRequest(f"{where} has the parameter {name}: that extension is not there; {_NOT_HERE[name]}")
        raise InvalidRequest(
            f"{where} has the parameter {clip(name, 100)!r}, which has no effect here: leave it out; known are "
            f"{', '.join(known)}"
        )


def flag_of(parameters: Mapping[str, Any], name: str, *, where: str) -> bool | None:
    """Return a parameter that is true or false; None where it is left out.

    Raises:
        InvalidRequest: It is neither.
    """
    value = parameters.get(name)
    if not isinstance(value, bool | None):
        raise InvalidRequest(f"{where} has a {name} that is neither true nor false")
    return value


def timeout_of(parameters: Mapping[str, Any]) -> float | None:
    """Return the seconds that a request's `timeout` gives it, which are microseconds there; None without one.

    Raises:
        InvalidRequest: It is no number of microseconds.
    """
    value = parameters.get("timeout")
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise InvalidRequest(
            f"the request has the timeout {clip(repr(value), 40)}: give a whole number of microseconds, 0 for none"
        )
    return value / 1_000_000 if value else None


def element_type(parameters: Mapping[str, Any], *, where: str) -> str | None:
    """Return the MIME type that a BYTES tensor's `content_type` names for its elements, or None.

    Raises:
        InvalidRequest: It is no MIME type.
    """
    content_type = parameters.get("content_type")
    if not isinstance(content_type, str) or "/" not in content_type:
        return None  # a word of another server's, such as "str" or "np"
    if not _MIME.fullmatch(content_type):
        raise InvalidRequest(f"{where} has the content_type {clip(content_type, 100)!r}, which is no MIME type")
    return content_type
