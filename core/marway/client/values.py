"""What a caller gives as a model's input, as the body and content type that handlers know what to do with."""

from __future__ import annotations

import dataclasses
import io
import json
import mimetypes
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from datetime import date
from pathlib import Path
from typing import Any, Final

from marway.errors import InvalidInput

__all__ = ["JSON", "body_of", "to_json"]

JSON: Final = "application/json"
_TEXT: Final = "text/plain"
_BYTES: Final = "application/octet-stream"


def body_of(value: object, content_type: str | None = None) -> tuple[bytes, str]:
    """Return an input as a body and its content type.

    ====================================  ======================================================
    str                                   UTF-8, `text/plain`
    bytes, bytearray, memoryview          as they are, `application/octet-stream`
    `pathlib.Path`, a file opened binary  what is in it, with the type that its name says
    a picture of Pillow                   PNG, `image/png`
    anything else                         JSON; arrays of numpy and tensors of torch as lists
    ====================================  ======================================================

    Args:
        value: The input.
        content_type: Said in the place of the above. What is not text, bytes or a file goes as a kind of JSON only.

    Raises:
        InvalidInput: It can be sent as nothing that a handler would understand, or a file cannot be read.
    """
    if isinstance(value, str):
        return _encoded(value), content_type or _TEXT
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value), content_type or _BYTES
    if isinstance(value, Path):
        try:
            return value.read_bytes(), content_type or _type_of(value.name)
        except OSError as exc:
            raise InvalidInput(f"cannot read the input file {value}: {exc.strerror}") from exc
    if isinstance(value, io.IOBase):
        return _read(value), content_type or _type_of(str(getattr(value, "name", "")))
    if _is_from(value, "PIL") and hasattr(value, "save"):
        return _as_png(value, content_type), "image/png"
    if content_type is not None and "json" not in content_type.lower():
        raise InvalidInput(
            f"a {type(value).__name__} goes as JSON, not as {content_type}: give bytes or text in that form"
        )
    return to_json(value), content_type or JSON


def to_json(value: object) -> bytes:
    """Return a value as JSON.

    Raises:
        InvalidInput: JSON cannot say it: NaN, an infinity, bytes, an object of a kind that is not known here.
    """
    try:
        return _ENCODER.encode(value).encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput("the input has text that is no Unicode (half a surrogate pair): mend it") from exc
    except (ValueError, RecursionError) as exc:  # the standard library's words for both are of its own insides
        if "circular" in str(exc).lower() or isinstance(exc, RecursionError):
            raise InvalidInput("the input contains itself, or is nested too deeply for JSON") from exc
        raise InvalidInput(
            "the input has a number that JSON has not, NaN or an infinity: send None in its place, or bytes in a form "
            "that has them"
        ) from exc
    except TypeError as exc:
        raise InvalidInput(f"the input cannot be sent as JSON: {exc}") from exc


def _plain(value: Any) -> object:
    """Return what JSON knows for a value that it does not know, for `json.dumps`."""
    if _is_from(value, "numpy"):
        return value.tolist()
    if _is_from(value, "torch") and hasattr(value, "detach"):
        return value.detach().cpu().tolist()
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, AbstractSet):
        return list(value)
    if isinstance(value, date):
        return value.isoformat()
    if not isinstance(value, type) and callable(dump := getattr(value, "model_dump", None)):  # pydantic's
        return dump(mode="json")
    if _is_from(value, "pandas") or _is_from(value, "polars"):
        raise TypeError(f"say how a {type(value).__name__} is meant, such as `.to_dict('records')` or `.to_numpy()`")
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes within it have no form in JSON: send them alone, or as base64 text")
    raise TypeError(f"a {type(value).__module__}.{type(value).__name__} has no form in JSON")


_ENCODER: Final = json.JSONEncoder(default=_plain, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def _is_from(value: object, package: str) -> bool:
    """Return whether a value's class, or one that it is made of, is of a package, without importing that."""
    return any(each.__module__.partition(".")[0] == package for each in type(value).__mro__)


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidInput("the input has text that is no Unicode (half a surrogate pair): mend it") from exc


def _read(file: io.IOBase) -> bytes:
    content = file.read()
    if isinstance(content, str):
        raise InvalidInput("the input file was opened as text: open it with 'rb', or give its text")
    return bytes(content)


def _as_png(picture: Any, content_type: str | None) -> bytes:
    if content_type not in (None, "image/png"):
        raise InvalidInput(f"a picture goes as image/png: to send {content_type}, save it so and give the bytes")
    written = io.BytesIO()
    try:
        picture.save(written, format="PNG")
    except OSError as exc:
        raise InvalidInput(f"the picture is nothing for PNG ({exc}): convert it, as by `.convert('RGB')`") from exc
    return written.getvalue()


def _type_of(name: str) -> str:
    return mimetypes.guess_type(name)[0] or _BYTES
