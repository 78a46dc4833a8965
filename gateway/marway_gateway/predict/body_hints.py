"""What a caller may have got wrong about a body that a model failed on: a content type left out, bytes sent as text."""

from __future__ import annotations

import json
from typing import Final

from marway.errors import MarwayError, ModelError
from marway.wire.envelope import mime_type
from marway_gateway.predict.call import PredictCall

__all__ = ["body_hint", "hinted"]

_SURFACES: Final = frozenset({"native", "torchserve"})
"""Those whose callers choose the content type."""
_JSON: Final = "application/json"
_FORM: Final = "application/x-www-form-urlencoded"
_READ_MAX: Final = 64 * 1024
"""Bytes of the largest body that is parsed to find out whether it is JSON; reading it takes about a millisecond."""
_PNG: Final = b"\x89PNG"
_PNG_WHOLE: Final = b"\x89PNG\r\n\x1a\n"  # made to show such a loss: https://www.w3.org/TR/png-3/#5PNG-file-signature
_BINARY: Final = {_PNG_WHOLE: "image/png", b"\xff\xd8\xff": "image/jpeg", b"GIF8": "image/gif"}


def hinted(error: MarwayError, call: PredictCall) -> MarwayError:
    """Return a model's error with a hint, where the body that it failed on looks like a slip; else as it is."""
    body = call.body.whole
    if not isinstance(error, ModelError) or body is None or call.info.surface not in _SURFACES:
        return error
    hint = body_hint(call.headers.get("content-type"), body)
    if hint is None:
        return error
    return ModelError(f"{error.message}; {hint}", status=error.status, model=error.model, version=error.version)


def body_hint(content_type: str | None, body: bytes) -> str | None:
    """Return what may be wrong with a body and what to send instead; None where nothing shows."""
    sent = mime_type(content_type).lower() if content_type is not None else None
    if sent is None:
        how = "without a content type"
    else:
        how = f"as {sent}" + (", which is what curl -d says" if sent == _FORM else "")
    if body.startswith(_PNG) and not body.startswith(_PNG_WHOLE):
        return (
            "the body is a PNG picture without its line ends, which curl -d @FILE takes out: send it with "
            "--data-binary @FILE"
        )
    if sent == _JSON:
        trouble = _json_trouble(body)
        return None if trouble is None else f"the body came {how}, and is not valid JSON ({trouble})"
    if sent in (None, _FORM) or sent.startswith("text/") or sent == "application/octet-stream":
        text = body.strip()
        if text[:1] + text[-1:] in (b"{}", b"[]") and _json_trouble(body) is None:
            return f"the body is JSON and came {how}: if the model wants JSON, send -H 'content-type: {_JSON}'"
        if sent == _FORM and not _is_text(body):
            kind = next((kind for start, kind in _BINARY.items() if body.startswith(start)), None)
            typed = f"-H 'content-type: {kind}'" if kind is not None else "its content type"
            return f"the body is no text and came {how}: send it with --data-binary @FILE and {typed}"
    return None


def _json_trouble(body: bytes) -> str | None:
    """Return why a body is no JSON; None where it is, or is too long to find out."""
    if len(body) > _READ_MAX:
        return None
    try:
        json.loads(body)
    except UnicodeDecodeError:
        return "it is no text in UTF-8"
    except ValueError as exc:
        return str(exc)
    except RecursionError:
        return "it is nested too deeply"
    return None


def _is_text(body: bytes) -> bool:
    try:
        body[:_READ_MAX].decode()
    except UnicodeDecodeError as exc:
        return len(body) > _READ_MAX and exc.start > _READ_MAX - 4  # cut within a character
    return True
