"""Reads a source's files, which may be anybody's: bounded, and never out of the directory that was given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Final, TypeVar

from marway.archives.entries import from_file, read_all, shown
from marway.errors import InvalidArchive, InvalidInput, clip

__all__ = ["MAX_TEXT_BYTES", "leaves", "listed", "parsed_json", "read_bytes", "read_text", "within"]

MAX_TEXT_BYTES: Final = 1024 * 1024
"""Longest configuration that is read."""
_MAX_ITEMS: Final = 10_000
_MAX_DEPTH: Final = 32

T = TypeVar("T")


def read_bytes(path: Path, limit: int = MAX_TEXT_BYTES) -> bytes:
    """Return what a regular file holds.

    Raises:
        InvalidInput: There is none, or it is longer than ``limit`` bytes.
    """
    try:
        return read_all(from_file(path.name, path), limit)
    except InvalidArchive as exc:
        raise InvalidInput(exc.message) from exc


def read_text(path: Path) -> str:
    """Return a file's text, which is UTF-8; raises as `read_bytes`."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise InvalidInput(f"{path} is not UTF-8") from exc


def parsed_json(text: str, where: str) -> Any:
    """Parse JSON that names no field twice and is not nested deeply.

    Raises:
        InvalidInput: It is none; the message begins with ``where``.
    """

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        document = dict(pairs)
        if len(document) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise InvalidInput(f"{where} names {shown(twice)} twice in one object")
        return document

    try:
        document = json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"{where} is not JSON: {clip(str(exc), 120)}") from exc
    _check_depth(document, where)
    return document


def _check_depth(document: Any, where: str) -> None:
    level: list[Any] = [document]
    for _ in range(_MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise InvalidInput(f"{where} is nested deeper than {_MAX_DEPTH} levels")


def listed(directory: Path, wanted: Callable[[Path], bool] = lambda _: True) -> list[Path]:
    """Return what lies right below a directory and is ``wanted``, by name; hidden files are not.

    Raises:
        InvalidInput: It cannot be read, or holds too many.
    """
    try:
        found = sorted(each for each in directory.iterdir() if not each.name.startswith("."))
    except OSError as exc:
        raise InvalidInput(f"{directory} cannot be read: {(exc.strerror or str(exc)).lower()}") from exc
    if len(found) > _MAX_ITEMS:
        raise InvalidInput(f"{directory} holds more than {_MAX_ITEMS} files: give the directory of the models alone")
    return [each for each in found if wanted(each)]


def within(directory: Path, name: str, what: str) -> Path:
    """Return the file or directory that a source names relative to ``directory``, which must lie in there.

    Raises:
        InvalidInput: The name leads out of it, by itself or over a symbolic link, or to nothing.
    """
    parts = PurePosixPath(name).parts
    if not parts or "\0" in name or PurePosixPath(name).is_absolute() or ".." in parts:
        raise InvalidInput(f"{what} {shown(name)} leads out of {directory}: it must be a path below it")
    path = directory / name
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as exc:
        raise InvalidInput(f"{what} {shown(name)} is not there in {directory}") from exc
    if not real.is_relative_to(directory.resolve()):
        raise InvalidInput(f"{what} {shown(name)} is a symbolic link out of {directory}: copy the file there (cp -L)")
    return path


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yield each value below a mapping or list with its path: items of a list that have names by these."""
    if isinstance(value, Mapping) and value:
        for key, each in value.items():
            yield from leaves(each, f"{path}.{key}")
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for place, each in enumerate(value):
            name = each.get("name", place) if isinstance(each, Mapping) else place
            if isinstance(each, dict) and each.keys() == {"name", "value"}:
                yield f"{path}[{name}]", clip(str(each["value"]), 100)
            else:
                yield from leaves(each, f"{path}[{name}]")
    else:
        shown = "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        yield path, clip(" ".join(shown.split()), 100)
