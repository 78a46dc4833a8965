"""The objects that a job reads: files of this machine by a pattern, or objects of S3 by a prefix or a pattern."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final, Protocol
from urllib.parse import unquote, urlsplit

from marway.errors import InvalidInput, NotFound
from marway.objects import ObjectMissing, ObjectStore, open_store
from marway_ops.batch.job import Format, Input, OutputFormat

__all__ = ["Source", "find_sources", "format_of", "output_format_of"]

_SUFFIXES: Final[dict[str, Format]] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".parquet": "parquet",
}
_WILD: Final = "*?["


class Source(Protocol):
    """One object that can be read."""

    @property
    def input(self) -> Input:
        """What it is."""

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open it for reading; the handle can seek.

        Raises:
            InvalidInput: It cannot be read any more.
        """


class _File:
    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            found = path.stat()
        except OSError as exc:
            raise InvalidInput(f"cannot read the input {path}: {exc.strerror}") from exc
        self.input = Input(name=str(path), size=found.st_size, tag=str(found.st_mtime_ns))

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        try:
            handle = self._path.open("rb")
        except OSError as exc:
            raise InvalidInput(f"cannot read the input {self._path}: {exc.strerror}") from exc
        with handle:
            yield handle


class _Object:
    def __init__(self, store: ObjectStore, key: str, name: str) -> None:
        self._store, self._key = store, key
        size, tag = store.size(key), store.tag(key)
        if size is None or tag is None:
            raise InvalidInput(f"the input {name} was there a moment ago and is gone")
        self.input = Input(name=name, size=size, tag=tag)

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        try:
            with self._store.open(self._key) as handle:
                yield handle
        except ObjectMissing as exc:
            raise InvalidInput(f"the input {self.input.name} is gone") from exc


def find_sources(wanted: list[str]) -> list[Source]:
    """Return what patterns, files, directories and `s3://` URLs name, each once, in the order of their names. Blocks.

    Raises:
        NotFound: One of them names nothing.
        InvalidInput: Something cannot be read.
        RegistryUnavailable: S3 cannot be reached.
    """
    found: dict[str, Source] = {}
    for each in wanted:
        sources = list(_in_s3(each) if each.startswith("s3://") else _on_disk(each))
        if not sources:
            raise NotFound(f"no input is named {each}: give a file, a directory, a pattern in quotes or an s3:// URL")
        found |= {source.input.name: source for source in sources}
    return [found[name] for name in sorted(found)]


def _on_disk(wanted: str) -> Iterator[Source]:
    pattern = unquote(urlsplit(wanted).path) if wanted.startswith("file://") else wanted
    path = Path(pattern).expanduser()
    if path.is_dir():
        paths: Iterator[Path] = (each for each in path.rglob("*") if not _hidden(each.relative_to(path).parts))
    elif path.exists():
        paths = iter([path])
    else:
        base = Path(*itertools.takewhile(lambda part: not set(part) & set(_WILD), path.parts))
        paths = base.glob(str(path.relative_to(base))) if path != base else iter(())
    for each in paths:
        if each.is_file():
            yield _File(each.absolute())


def _in_s3(url: str) -> Iterator[Source]:
    wild = min((at for at in map(url.find, _WILD) if at >= 0), default=None)
    if wild is None:
        parent, _, name = url.rstrip("/").rpartition("/")
        if not url.endswith("/") and parent.count("/") >= 2:  # one object, or else a prefix
            store = open_store(parent)
            if store.size(name) is not None:
                yield _Object(store, name, url)
                return
        base, pattern = url.rstrip("/"), "*"
    else:
        base, _, pattern = url[:wild].rpartition("/")
        pattern += url[wild:]
    store = open_store(base)
    for key in store.keys(""):
        if fnmatch.fnmatchcase(key, pattern) and not _hidden(PurePosixPath(key).parts):
            yield _Object(store, key, f"{base}/{key}")


def _hidden(parts: tuple[str, ...]) -> bool:
    """Return whether readers of directories pass something by, as those of Parquet do: so do the parts of a job."""
    return any(part.startswith((".", "_")) for part in parts)


def format_of(sources: list[Source]) -> Format:
    """Return how inputs are read by their suffixes; what are no tables are files, each of which is a row.

    Raises:
        InvalidInput: Some are tables and some are not, or not of one kind.
    """
    kinds = {_SUFFIXES.get(PurePosixPath(each.input.name).suffix.lower(), "files") for each in sources}
    if len(kinds) != 1:
        raise InvalidInput(
            f"the inputs are of several formats ({', '.join(sorted(kinds))}): say with --input-format how all are "
            "read, or name fewer"
        )
    return kinds.pop()


def output_format_of(url: str, input_format: Format) -> OutputFormat:
    """Return how an output is written by its suffix, else as its input is read."""
    named = _SUFFIXES.get(PurePosixPath(urlsplit(url).path.rstrip("/")).suffix.lower(), input_format)
    return "jsonl" if named == "files" else named
