"""Golden examples as people give them: on the command line, in a JSONL file, or as Python values."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from marway.answers.golden import MAX_EXAMPLES, MAX_EXAMPLES_BYTES, ExampleInput, decode_examples, is_json, mime_type
from marway.archives.entries import Entry, from_file, read_all, shown
from marway.errors import InvalidArchive, clip
from marway.wire.envelope import RAW_BODY, Part
from marway.worker.requests import UnusableInput, value_of

__all__ = [
    "UNSET",
    "Example",
    "body_value",
    "check_examples_type",
    "encode_all",
    "example_of_flag",
    "input_line",
    "read_examples",
    "read_jsonl",
]

_TYPES = {
    ".jpeg": "image/jpeg", ".jpg": "image/jpeg", ".json": "application/json", ".png": "image/png",
    ".txt": "text/plain",
}  # fmt: skip
_JSON, _TEXT, _BYTES = "application/json", "text/plain", "application/octet-stream"
_FIELDS = ("input", "file", "output", "content_type", "status")


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = _Unset()
"""Stands for an output that was not given; None is an output."""


@dataclass(frozen=True, slots=True)
class Example:
    """One golden example.

    Attributes:
        input: What a client would send: str as `text/plain`, bytes as `application/octet-stream`, a `Path` as that
            file's bytes with the type of its name, anything else as JSON.
        output: What the handler must answer, as JSON value or text; left out, whatever it answers is recorded.
        content_type: Another content type than the one above; with JSON, a str ``input`` is a JSON string.
        status: The status that the answer must have; left out, one below 400.
    """

    input: Any
    output: Any = UNSET
    content_type: str | None = None
    status: int | None = None

    def encoded(self) -> ExampleInput:
        """Return the body that a client would send.

        Raises:
            InvalidArchive: The input cannot be one; the message says why.
        """
        if self.status is not None and (isinstance(self.status, bool) or not 200 <= self.status <= 599):
            raise InvalidArchive(f"example status {self.status}: it must be from 200 to 599")
        kind = self.content_type
        if kind is not None and (not kind or len(kind) > 256 or not kind.isascii() or not kind.isprintable()):
            raise InvalidArchive(f"example content type {shown(kind)}: it must be printable ASCII, such as text/plain")
        value = self.input
        if isinstance(value, Path):
            return ExampleInput(_file(value), kind or _TYPES.get(value.suffix.lower(), _BYTES), self.status)
        if isinstance(value, bytes | bytearray):
            return ExampleInput(bytes(value), kind or _BYTES, self.status)
        if isinstance(value, str) and not is_json(kind):
            return ExampleInput(_utf8(value), kind or _TEXT, self.status)
        try:
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        except (TypeError, ValueError, RecursionError) as exc:
            raise InvalidArchive(f"an example's input is neither text, bytes nor JSON: {exc}") from exc
        return ExampleInput(_utf8(text), kind or _JSON, self.status)


def example_of_flag(text: str) -> Example:
    """Return the example that `--example` was given: `@FILE`, a JSON object, array or string, or a text."""
    if text.startswith("@"):
        return Example(Path(text[1:]))
    if text.lstrip()[:1] in ("{", "[", '"'):
        try:
            json.loads(text)
        except (ValueError, RecursionError):
            return Example(text)
        return Example(_utf8(text), content_type=_JSON)
    return Example(text)


def read_jsonl(path: Path) -> list[Example]:
    """Read `--examples FILE.jsonl`: an object a line with `input` or `file`, and `output`, `content_type`, `status`.

    `file` names a file relative to the JSONL file. Empty lines are skipped.

    Raises:
        InvalidArchive: A line is not such an object; the message names it.
    """
    try:
        text = _file(path).decode()
    except UnicodeDecodeError as exc:
        raise InvalidArchive(f"{path} is not UTF-8") from exc
    found = [_of_line(path, number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not found:
        raise InvalidArchive(
            f"{path} holds no example: give one JSON object a line, such as " + '{"input": "some text"}'
        )
    return found


def _of_line(path: Path, number: int, line: str) -> Example:
    where = f"{path}:{number}"
    try:
        raw = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{where}: is not JSON: {clip(str(exc), 120)}") from exc
    if not isinstance(raw, dict) or ("input" in raw) == ("file" in raw):
        raise InvalidArchive(f"{where}: an object with either 'input' or 'file' is wanted")
    unknown = sorted(set(raw) - set(_FIELDS))
    if unknown:
        raise InvalidArchive(f"{where}: {shown(unknown[0])} is no field of an example: there are {', '.join(_FIELDS)}")
    kind, status, file = raw.get("content_type"), raw.get("status"), raw.get("file")
    if not isinstance(kind, str | None):
        raise InvalidArchive(f"{where}: content_type is a text, such as text/plain")
    if not isinstance(status, int | None):
        raise InvalidArchive(f"{where}: status is a number, such as 400")
    if "file" in raw and not isinstance(file, str):
        raise InvalidArchive(f"{where}: file is the name of a file")
    value = raw["input"] if file is None else path.parent / file
    return Example(value, raw.get("output", UNSET), kind, status)


def encode_all(examples: Iterable[Any]) -> tuple[list[Example], list[ExampleInput]]:
    """Return examples, of which some are only their inputs, and each as a client would send it."""
    given = [each if isinstance(each, Example) else Example(each) for each in check_examples_type(examples)]
    if len(given) > MAX_EXAMPLES:
        raise InvalidArchive(f"{len(given)} golden examples: an archive carries at most {MAX_EXAMPLES}")
    return given, [each.encoded() for each in given]


def read_examples(entries: Mapping[str, Entry]) -> tuple[ExampleInput, ...]:
    """Return the golden inputs among an archive's entries; an `InvalidArchive` says that their index is damaged."""
    return decode_examples(lambda name, limit: read_all(entries[name], limit) if name in entries else None)


def body_value(example: ExampleInput) -> Any:
    """Return the body as a handler sees it under `data`: JSON parsed, text as str, else a bytearray.

    Raises:
        InvalidArchive: No handler can be given it.
    """
    try:
        return value_of(Part(RAW_BODY, example.data, example.content_type))
    except UnusableInput as exc:
        raise InvalidArchive(f"an example's input: {exc}") from exc


def input_line(example: ExampleInput) -> str:
    """Return an input as one short line for a table."""
    kind = mime_type(example.content_type)
    if is_json(kind) or kind.startswith("text"):
        return clip(" ".join(example.data[:400].decode(errors="replace").split()), 48)
    return f"{kind or 'bytes'}, {len(example.data)} bytes"


def _file(path: Path) -> bytes:
    return read_all(from_file(path.name, path), MAX_EXAMPLES_BYTES)


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidArchive("an example holds half a surrogate pair, which is no Unicode text") from exc


def check_examples_type(value: Any) -> Sequence[Any]:
    """Refuse a single text or mapping where a sequence of examples is wanted: it would be taken apart."""
    if isinstance(value, str | bytes | Mapping):
        raise InvalidArchive("examples is a sequence: put a single example into a list")
    return list(value)
