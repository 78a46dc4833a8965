"""What an importer finds: all that packing needs beside the model's name and version."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from marway.errors import InvalidArchive, clip
from marway.records import Signature

__all__ = [
    "REQUIREMENTS",
    "SIGNATURE",
    "Imported",
    "Importer",
    "file_below",
    "handler_file",
    "only_file",
    "pinned",
    "signature_beside",
]

SIGNATURE: Final = "signature.json"
"""Beside a model that does not say what it takes: its record's `signature`."""
REQUIREMENTS: Final = "requirements.txt"
_DOCUMENT_BYTES_MAX: Final = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Imported:
    """What an importer found.

    Attributes:
        handler: The name of the handler's file in `marway_handlers`.
        framework: For the version's record: which library the model is of, and in which version, where that is known.
        serialized_file: The model's file, where it is one.
        extra_files: Files and directories that go to the archive's root.
        add_files: Further files by their name in the archive.
        requirements: pip's lines; empty where the library's own file is among ``extra_files``.
        requirements_file: That file, where it is there.
        signature: What the model takes and gives, as far as it says so.
        warnings: One sentence each on what may surprise.
    """

    handler: str
    framework: tuple[str, str | None]
    serialized_file: Path | None = None
    extra_files: tuple[Path, ...] = ()
    add_files: Mapping[str, bytes] = field(default_factory=dict)
    requirements: tuple[str, ...] = ()
    requirements_file: Path | None = None
    signature: Signature = field(default_factory=Signature)
    warnings: tuple[str, ...] = ()


Importer = Callable[[Path], Imported]
"""Reads what lies at a path, and raises `InvalidArchive` for what it cannot have served."""


def handler_file(name: str) -> str:
    """Return the path of one of Marway's own handlers, without importing it.

    Raises:
        InvalidArchive: It is not installed.
    """
    found = find_spec("marway_handlers")
    places = [] if found is None else list(found.submodule_search_locations or ())
    for place in places:
        file = Path(place) / f"{name}.py"
        if file.is_file():
            return str(file)
    raise InvalidArchive(f"Marway's handler {name} is not installed here: install marway whole")


def only_file(source: Path, endings: Sequence[str], what: str) -> Path:
    """Return the one file with one of these endings in a directory, or the file itself.

    Raises:
        InvalidArchive: There is none, or there are several.
    """
    if source.is_file():
        if source.suffix not in endings:
            raise InvalidArchive(f"{source} is no {what}: its name ends with {' or '.join(endings)}")
        return source
    if not source.is_dir():
        raise InvalidArchive(f"{source} does not exist")
    found = sorted(each for each in source.iterdir() if each.suffix in endings and each.is_file())
    if not found:
        raise InvalidArchive(f"{source} holds no {what}: a file whose name ends with {' or '.join(endings)}")
    if len(found) > 1:
        raise InvalidArchive(f"{source} holds {found[0].name} and {found[1].name}: name the file that is meant")
    return found[0]


def file_below(source: Path, name: str, what: str) -> bytes:
    """Return the content of a short file in a directory.

    Raises:
        InvalidArchive: It is not there, cannot be read, or is too long to be one.
    """
    file = source / name
    if not file.is_file():
        raise InvalidArchive(f"{source} is no directory of {what}: it has no {name}")
    if file.stat().st_size > _DOCUMENT_BYTES_MAX:
        raise InvalidArchive(f"{file} has more than {_DOCUMENT_BYTES_MAX} bytes")
    return file.read_bytes()


def pinned(package: str, what: str) -> str:
    """Return the requirement of the version of a package that is installed here.

    Raises:
        InvalidArchive: It is not.
    """
    try:
        return f"{package}=={version(package).partition('+')[0]}"
    except PackageNotFoundError as exc:
        raise InvalidArchive(
            f"{what} needs {package}, which is not installed here, so that its version is not known: pip install it"
        ) from exc


def signature_beside(model: Path) -> tuple[Signature, dict[str, bytes]]:
    """Return the signature in `signature.json` beside a model, and that file for the archive.

    Raises:
        InvalidArchive: It is none.
    """
    file = model.parent / SIGNATURE
    if not file.is_file():
        return Signature(), {}
    data = file_below(model.parent, SIGNATURE, "a model")
    try:
        document: Any = json.loads(data)
        return Signature.model_validate(document), {SIGNATURE: data}
    except (ValidationError, ValueError, RecursionError) as exc:
        raise InvalidArchive(
            f"{file} is no signature: {clip(' '.join(str(exc).split()), 200)}; give "
            '{"inputs": [{"name": …, "datatype": "FP32", "shape": [-1, …]}]}'
        ) from exc
