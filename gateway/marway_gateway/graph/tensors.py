"""Tensors from node to node: outputs of a response, or inputs of a request, as another request; bytes as they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from marway.errors import InvalidRequest, ModelError, clip
from marway_http.tensors.tensor import json_object
from marway_http.tensors.v2_parameters import ALL_BINARY, SIZE

__all__ = ["Body", "asks_for_some", "request_of"]

Body = tuple[bytes, int | None]
"""A body of the Open Inference Protocol over REST, and how many bytes of it are JSON; None: all."""
_OWN: Final[tuple[str, ...]] = ("name", "datatype", "shape", "data")
_SEQUENCE: Final = "sequence_"


def asks_for_some(text: bytes) -> bool:
    """Return whether a request may name the outputs that it wants: then a node that is not the last must not see it."""
    return b'"outputs"' in text or b"\\u00" in text


def request_of(before: Body | None, names: Mapping[str, str] | None, request: Body | None, *, last: bool) -> Body:
    """Return the request that carries tensors of a message.

    Args:
        before: What was answered before; None: the graph's own request is what the tensors are of.
        names: Which of its tensors become which inputs; None: all of them, under their names.
        request: The graph's own request, whose id and parameters go on; None where it is none of the protocol.
        last: Whether the answer is the graph's, so that it has the outputs that the caller wants, as he wants them.

    Raises:
        InvalidRequest: The graph's request is none of the protocol, or lacks a tensor.
        ModelError: The answer before is none of the protocol, or lacks a tensor.
    """
    asked = {} if request is None else _document(request, InvalidRequest)
    if before is None:
        assert request is not None
        inputs, sections = _picked(asked, request, names, InvalidRequest)
    else:
        inputs, sections = _picked(_document(before, ModelError), before, names, ModelError)
    document: dict[str, Any] = {"inputs": inputs}
    if isinstance(asked.get("id"), str):
        document["id"] = asked["id"]
    given = asked.get("parameters")
    parameters_given = dict(given) if isinstance(given, dict) else {}
    parameters = {name: value for name, value in parameters_given.items() if not name.startswith(_SEQUENCE)}
    if last and "outputs" in asked:
        document["outputs"] = asked["outputs"]
    elif not last and (sections or (request is not None and request[1] is not None)):
        parameters[ALL_BINARY] = True  # whoever sends binary tensors is served by who knows them; here they are copied
    if parameters:
        document["parameters"] = parameters
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
    return (b"".join([text, *sections]), len(text)) if sections else (text, None)


def _picked(
    document: Mapping[str, Any],
    message: Body,
    names: Mapping[str, str] | None,
    wrong: type[InvalidRequest | ModelError],
) -> tuple[list[dict[str, Any]], list[memoryview]]:
    """Return the tensors that are wanted as inputs, and the data of those that are binary, in their order."""
    kind = "inputs" if "inputs" in document else "outputs"
    tensors = document.get(kind)
    body, length = message
    offset = len(body) if length is None else length
    data = memoryview(body)
    found: dict[str, tuple[dict[str, Any], memoryview | None]] = {}
    for each in tensors if isinstance(tensors, list) else ():
        if not isinstance(each, dict) or not isinstance(each.get("name"), str):
            raise wrong(f"one of its {kind} has no name")
        parameters = each.get("parameters")
        size = parameters.get(SIZE) if isinstance(parameters, dict) else None
        section = None
        if size is not None:
            if type(size) is not int or not 0 <= size <= len(body) - offset:
                raise wrong(f"{kind.removesuffix('s')} {clip(each['name'], 100)!r} has a binary_data_size of {size!r}")
            section, offset = data[offset : offset + size], offset + size
        found[each["name"]] = each, section
    inputs, sections = [], []
    for name, as_input in (names or {name: name for name in found}).items():
        if name not in found:
            there = clip(", ".join(found), 300) or "none"
            raise wrong(f"there is no tensor {name!r} among the {kind} of what it is given: {there}")
        tensor, section = found[name]
        given: dict[str, Any] = {key: tensor[key] for key in _OWN if key in tensor} | {"name": as_input}
        if section is not None:
            sections.append(section)
            given["parameters"] = {SIZE: len(section)}
        elif isinstance(tensor.get("parameters"), dict) and kind == "inputs":
            given["parameters"] = tensor["parameters"]
        inputs.append(given)
    return inputs, sections


def _document(message: Body, wrong: type[InvalidRequest | ModelError]) -> dict[str, Any]:
    body, length = message
    try:
        return json_object(body if length is None else body[:length], nonfinite=True)
    except InvalidRequest as exc:
        raise wrong(f"what it is given is no message of the Open Inference Protocol: {clip(exc.message, 300)}") from exc
