"""Requests, as TorchServe's REST front end hands them to a handler."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from marway.answers.golden import ExampleInput
from marway_archiver.examples import body_value

__all__ = ["Row", "bytes_row", "form_row", "json_row", "row_of", "text_row"]


@dataclass(frozen=True, slots=True)
class Row:
    """One request.

    Attributes:
        inputs: What the handler gets: a raw body under `data`, or each field of a form under its name.
        content_types: Of each input, as far as it has one.
        headers: Request headers that the handler may ask the context for.
        raw: Whether the one input, `data`, is a raw body, which answers to `body` as well.
    """

    inputs: Mapping[str, Any]
    content_types: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bool = False


def text_row(text: str) -> Row:
    """Return the request of `curl -H 'content-type: text/plain' -d TEXT`: the handler gets a str."""
    return bytes_row(text.encode(), "text/plain")


def json_row(value: Any) -> Row:
    """Return a request with a JSON body: the handler gets the parsed value."""
    return bytes_row(json.dumps(value, ensure_ascii=False).encode(), "application/json")


def bytes_row(body: bytes, content_type: str | None = None, **headers: str) -> Row:
    """Return a request with any body: parsed for JSON, a str for `text/*`, else a bytearray."""
    value = body_value(ExampleInput(body, content_type))
    types = {} if content_type is None else {"data": content_type}
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    if content_type is not None:
        sent.setdefault("content-type", content_type)
    return Row({"data": value}, types, sent, raw=True)


def form_row(**fields: bytes | str) -> Row:
    """Return a multipart request: the handler gets each field's bytes under its name."""
    values = {name: bytearray(value.encode() if isinstance(value, str) else value) for name, value in fields.items()}
    return Row(values, {}, {"content-type": "multipart/form-data"})


def row_of(value: Row | Mapping[str, Any]) -> Row:
    """Return ``value`` as a row: one already, or its inputs."""
    return value if isinstance(value, Row) else Row(value)
