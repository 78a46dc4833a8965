"""Requests for models of which nobody has any: made by what a server of the v2 protocol says of its inputs."""

from __future__ import annotations

import json
import math
from typing import Any, Final

from marway.errors import clip
from marway_archiver.adopt.comparing.calling import NoAnswer, Server
from marway_archiver.adopt.comparing.routes import default_route
from marway_archiver.adopt.comparing.sent import OldRequest
from marway_archiver.adopt.found import FoundModel

__all__ = ["sample_requests"]

_COUNT: Final = 3
_ELEMENTS_MAX: Final = 1_000_000
_INTEGERS: Final = frozenset(f"{sign}INT{bits}" for sign in ("", "U") for bits in (8, 16, 32, 64))
_FLOATS: Final = frozenset({"FP16", "FP32", "FP64"})
_WORDS: Final = ("wake me at six", "play some jazz", "how is the weather")


def sample_requests(old: Server, model: FoundModel) -> tuple[tuple[OldRequest, ...], str | None]:
    """Return a few requests for a model by the metadata that its server gives, or why there are none. Blocks.

    They show that both servers take and compute the same; whether the values make sense is not known.
    """
    endpoint = model.endpoint
    if endpoint.protocol != "v2":
        return (), "its protocol does not say what a model takes: give some with --requests"
    route = default_route("v2", endpoint.model, endpoint.version)
    try:
        answer = old.get(route.path.removesuffix("/infer"), host=endpoint.host)
        if answer.status != 200:
            return (), f"the old server answers with status {answer.status} when asked what the model takes"
        inputs = json.loads(answer.body).get("inputs")
    except NoAnswer as exc:
        return (), f"the old server does not say what the model takes: {exc}"
    except (ValueError, RecursionError, AttributeError):
        return (), "what the old server says of the model is no metadata of the v2 protocol"
    if not isinstance(inputs, list) or not inputs:
        return (), "the old server does not say what the model takes: give requests with --requests"
    found = []
    for number in range(_COUNT):
        try:
            tensors = [_tensor(each, number) for each in inputs]
        except ValueError as exc:
            return (), f"no request could be made up for it: {exc}; give some with --requests"
        body = json.dumps({"inputs": tensors}, separators=(",", ":")).encode()
        found.append(OldRequest(f"made up for {model.name}, {number + 1}", route, body, "application/json"))
    return tuple(found), None


def _tensor(described: Any, number: int) -> dict[str, Any]:
    try:
        name, datatype, shape = described["name"], described["datatype"], described["shape"]
        # An open dimension is 1, so that a batch and a length fit; 2 and 3 of a length would do as well.
        sizes = [1 if int(size) < 0 else int(size) for size in shape]
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"its metadata has an input without name, datatype or shape ({type(exc).__name__})") from exc
    count = math.prod(sizes)
    if count > _ELEMENTS_MAX:
        raise ValueError(f"{clip(str(name), 60)} has {count} elements")
    return {"name": name, "shape": sizes, "datatype": datatype, "data": _values(str(datatype), count, number)}


def _values(datatype: str, count: int, number: int) -> list[Any]:
    if datatype in _FLOATS:  # numbers that every float of 16 bits holds exactly
        return [((7 * at + 3 * number) % 33 - 16) / 16 for at in range(count)]
    if datatype in _INTEGERS:
        return [(3 * at + number) % 10 for at in range(count)]
    if datatype == "BOOL":
        return [(at + number) % 2 == 0 for at in range(count)]
    if datatype == "BYTES":
        return [_WORDS[(at + number) % len(_WORDS)] for at in range(count)]
    raise ValueError(f"its datatype {clip(datatype, 40)} has no form in JSON")
