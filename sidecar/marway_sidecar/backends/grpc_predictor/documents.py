"""What a row is as a document, and a predictor's response as an answer: text in, text out."""

from __future__ import annotations

import json

from marway.errors import InvalidRequest, Unimplemented, clip
from marway.wire.envelope import Answer, Row, mime_type

__all__ = ["answer_of", "document_of"]


def document_of(row: Row) -> str:
    """Return the text that a predictor is asked: a body as it is, a JSON string as what it holds, a form's one field.

    Raises:
        InvalidRequest: It is no text, or more than one.
        Unimplemented: It asks for an explanation or a description.
    """
    if row.explains or row.headers.get("describe") == "True":
        raise Unimplemented("predictors have one call, for predictions: none that explains one or describes a model")
    if path := row.headers.get("url_path"):
        raise InvalidRequest(f"a predictor has nothing at {clip(path, 80)!r}")
    if len(row.parts) != 1:
        raise InvalidRequest(f"a predictor takes one text, and the form has {len(row.parts)} fields")
    (part,) = row.parts
    try:
        text = bytes(part.value).decode()
    except UnicodeDecodeError as exc:
        raise InvalidRequest("a predictor takes text, and the request is no UTF-8") from exc
    if mime_type(part.content_type).lower() != "application/json":
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidRequest("the request says that it is JSON, and is none") from exc
    return value if isinstance(value, str) else text


def answer_of(response: str) -> Answer:
    """Return the answer: JSON where the response is an object or a list, else text."""
    try:
        kind = "json" if response[:1] in ("{", "[") and json.loads(response) is not None else "text"
    except (ValueError, RecursionError):
        kind = "text"
    return Answer(200, response.encode(errors="replace"), kind)
