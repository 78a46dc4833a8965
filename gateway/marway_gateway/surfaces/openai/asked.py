"""What a request of OpenAI's API asks for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from marway.errors import InvalidReference, ModelNotFound
from marway.refs import parse_reference
from marway_gateway.surfaces.openai.errors import Refused
from marway_http.tensors.tensor import json_object

__all__ = ["Asked", "counted_row", "handlers_row", "read_asked"]

_A_MODEL: Final = "a model's name, perhaps with /LABEL or /VERSION behind it, or an id"
_WITHOUT: Final[dict[str, tuple[Any, ...]]] = {
    "n": (None, 1),
    "best_of": (None, 1),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "tools": (None, []),
    "functions": (None, []),
    "audio": (None,),
    "echo": (None, False),
}
"""Parameters that ask for more than one text, each with the values that do not."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the surface itself has to know of a request.

    Attributes:
        model: Whom it asks, in its own words, which its answer repeats.
        name, selector: The same as a reference.
        stream: Whether the answer is to come as events.
        counted: Whether the events are to end with one that counts tokens.
        beyond_text: The first parameter that a handler which answers with one text cannot do, or None.
    """

    model: str
    name: str
    selector: str | None
    stream: bool
    counted: bool = False
    beyond_text: str | None = None


def read_asked(body: bytes) -> Asked:
    """Read the body of a request.

    Raises:
        InvalidRequest: It is no JSON object.
        Refused: It names no model, or `stream` is no truth value.
        ModelNotFound: What it names cannot be a model.
    """
    document = json_object(body)
    model, stream = document.get("model"), document.get("stream")
    if not isinstance(model, str) or not model:
        raise Refused(f"`model` is missing: give {_A_MODEL}", param="model")
    if not isinstance(stream, bool | None):
        raise Refused("`stream` is neither true nor false", param="stream")
    try:
        reference = parse_reference(model)
    except InvalidReference as exc:
        raise ModelNotFound(f"there is no such model: {exc.message}") from exc
    options = document.get("stream_options")
    counted = isinstance(options, dict) and options.get("include_usage") is True
    return Asked(model, reference.name, reference.selector, bool(stream), counted, _beyond_text(document))


def handlers_row(body: bytes, name: str, wanted: str) -> bytes:
    """Return a request's body as the handlers of archives get it: JSON in which `model` is the model's name.

    Args:
        body: The request's.
        name: The model's.
        wanted: What it has to have: `messages` or `prompt`. A list of one prompt becomes that prompt.

    Raises:
        Refused: It has not.
    """
    document = json_object(body)
    given = document.get(wanted)
    if not given or not isinstance(given, list | str):
        raise Refused(f"`{wanted}` is missing, or is neither a text nor a list", param=wanted)
    if wanted == "prompt" and isinstance(given, list) and len(given) == 1:
        document["prompt"] = given[0]
    return json.dumps({**document, "model": name}, separators=(",", ":")).encode()


def counted_row(body: bytes) -> bytes:
    """Return a request for a stream that is to end with an event that counts tokens."""
    document = json_object(body)
    options = document.get("stream_options")
    document["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
    return json.dumps(document, separators=(",", ":")).encode()


def _beyond_text(document: dict[str, Any]) -> str | None:
    """Return a parameter that asks for more than one text."""
    for name, without in _WITHOUT.items():
        value = document.get(name)
        if not any(value == each and type(value) is type(each) for each in without):
            return name
    prompt = document.get("prompt")
    return "prompt" if isinstance(prompt, list) and len(prompt) > 1 else None
