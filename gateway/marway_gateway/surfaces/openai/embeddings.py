"""Embeddings by the handlers of archives: each text is a row, each row's answer a vector."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from marway.errors import ModelError, clip
from marway.records import VersionRecord
from marway.resolve.resolved import Resolved
from marway.wire.envelope import RAW_BODY, ROWS_MAX
from marway_gateway.surfaces.openai.errors import Refused
from marway_http.tensors.requests import Reading, Rendered
from marway_http.tensors.rows import JSON, TEXT, row_of_parts
from marway_http.tensors.tensor import json_object

__all__ = ["read_embeddings"]

_TAKEN: Final = frozenset({"model", "input", "encoding_format", "user"})
"""`user` says who asks, and changes no vector."""


def read_embeddings(body: bytes, header_length: str | None, version: Resolved) -> Reading:
    """Read a request for embeddings."""
    document = json_object(body)
    encoding = document.get("encoding_format") or "float"
    if encoding not in ("float", "base64"):
        raise Refused(f"`encoding_format` is {clip(repr(encoding), 60)}: give float or base64", param="encoding_format")
    for name, value in document.items():
        if name not in _TAKEN and value is not None:
            raise Refused(
                f"{clip(ascii(name), 60)} is not taken by {version.record.name} {version.record.version}: its handler "
                "gets the texts alone",
                param=clip(name, 60),
            )
    given = document.get("input")
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts or not all(isinstance(text, str) and text for text in texts):
        raise Refused(
            "`input` is neither a text nor a list of texts that are not empty; token ids are not taken, as the "
            "handler makes its own",
            param="input",
        )
    if len(texts) > ROWS_MAX:
        raise Refused(f"`input` has {len(texts)} texts: send {ROWS_MAX} at most", param="input")
    rows = [row_of_parts({RAW_BODY: (_utf8(text), TEXT)}) for text in texts]
    return Reading(rows, partial(_answer, version.record, document["model"], encoding))


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:  # half of a pair, which JSON can escape
        raise Refused("`input` has a text that is not valid Unicode", param="input") from exc


def _answer(record: VersionRecord, model: str, encoding: str, values: Sequence[Any]) -> Rendered:
    """Return the answer.

    Raises:
        ModelError: An answer of the handler's is no vector.
    """
    data = []
    for index, value in enumerate(values):
        vector = _vector(value)
        if vector is None:
            raise ModelError(
                f"input {index}: the handler's answer is no embedding: a list of finite numbers, alone or under "
                f"`embedding`, is one; is {record.name} a model of embeddings?",
                model=record.name,
                version=record.version,
            )
        embedding = _base64(vector) if encoding == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": embedding})
    # Clients read `usage` without asking whether it is there; what a handler took it does not say.
    usage = {"prompt_tokens": 0, "total_tokens": 0}
    document = {"object": "list", "data": data, "model": model, "usage": usage}
    return json.dumps(document, separators=(",", ":")).encode(), [("content-type", JSON)]


def _vector(value: Any) -> list[float] | None:
    """Return the vector that a handler answered with, or None; a list of one vector is one, as of a batch of one."""
    if isinstance(value, dict):
        value = value.get("embedding")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]
    if not isinstance(value, list) or not value:
        return None
    if not all(type(number) in (int, float) and math.isfinite(number) for number in value):
        return None
    return value


def _base64(vector: list[float]) -> str:
    """Return a vector as OpenAI's clients ask for it by default: float32, little endian."""
    try:
        packed = struct.pack(f"<{len(vector)}f", *vector)
    except OverflowError as exc:
        raise ModelError("an embedding has a number that no float32 can hold: ask with encoding_format float") from exc
    return base64.b64encode(packed).decode()
