"""Reads archives that may be anybody's: inspect, check, and rewrite them canonically.

Besides a `.mar` they may be a `.tar.gz` or a directory, as torch-model-archiver makes them; these are never canonical.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from marway.answers.golden import ExampleInput
from marway.errors import InvalidArchive
from marway_archiver.conversion import as_mar, is_directory_archive, is_tgz
from marway_archiver.entries import Entry, from_bytes, open_regular, read_all
from marway_archiver.examples import read_examples
from marway_archiver.manifest import MAX_MANIFEST_BYTES, Manifest, encode_manifest, parse_manifest
from marway_archiver.model_config import ModelConfig
from marway_archiver.names import MANIFEST_NAME, check_name, check_no_collisions
from marway_archiver.packing import PackedArchive, StrPath, place_archive
from marway_archiver.progress import Phases, Progress
from marway_archiver.rules import check_contents
from marway_archiver.zipscan import ArchiveFile, Scan, read_file, scan

__all__ = ["ArchiveInfo", "check_archive", "inspect_archive", "opened_archive", "repack"]


@dataclass(frozen=True, slots=True)
class ArchiveInfo:
    """What an archive holds.

    Attributes:
        path: The file.
        sha256: Digest of its bytes, hex; empty if it could not be read to its end.
        size_bytes: Its size.
        manifest: What it says of itself, if that could be read.
        config: Its model configuration, if it has one.
        files: All its files in their order, the manifest too; up to the first problem.
        canonical: Whether its bytes are those that packing its files again would give.
        problems: Why it would be refused: empty for an archive that is accepted.
        warnings: What is allowed and may surprise.
        examples: Its golden inputs.
    """

    path: Path
    sha256: str
    size_bytes: int
    manifest: Manifest | None
    config: ModelConfig | None
    files: tuple[ArchiveFile, ...]
    canonical: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...]
    examples: tuple[ExampleInput, ...] = ()


def inspect_archive(path: StrPath, *, progress: Progress | None = None) -> ArchiveInfo:
    """Read a `.mar` from end to end and say what it holds and what is wrong with it.

    Args:
        path: The archive.
        progress: Called as bytes are read.

    Raises:
        InvalidArchive: There is no file that could be read.
    """
    with _opened(Path(path)) as file:
        return _examine(file, Path(path), progress)


def check_archive(path: StrPath, *, progress: Progress | None = None) -> ArchiveInfo:
    """Read a `.mar` from end to end; nothing is written or run.

    Args:
        path: The archive.
        progress: Called as bytes are read.

    Raises:
        InvalidArchive: It is hostile, damaged, or something TorchServe would misread.
    """
    with _opened(Path(path)) as file:
        return _accepted(_examine(file, Path(path), progress))


@contextmanager
def opened_archive(
    path: StrPath, *, progress: Progress | None = None
) -> Iterator[tuple[ArchiveInfo, dict[str, Entry]]]:
    """Check an archive, and give what it holds while it is open: its files by name, without the manifest.

    Raises:
        InvalidArchive: As `check_archive`.
    """
    with _opened(Path(path)) as file:
        info = _accepted(_examine(file, Path(path), progress))
        yield info, _entries(file, info.files)


def repack(
    path: StrPath,
    destination: StrPath,
    *,
    force: bool = False,
    add_files: Mapping[str, bytes] | None = None,
    progress: Progress | None = None,
) -> PackedArchive:
    """Check an archive, then write it canonically; a canonical one gives the same bytes again.

    The manifest keeps what it says, but for `createdOn` (`marway_archiver.manifest`); directory entries,
    comments, times and modes are dropped.

    Args:
        path: An archive such as torch-model-archiver makes.
        destination: A file, or a directory to put `MODEL_NAME.mar` in.
        force: Replace a destination that exists.
        add_files: Further files by their name in the archive, in place of those of the same name.
        progress: Called as bytes are done: checking is one half of it, writing the other.

    Raises:
        InvalidArchive: As `check_archive`; or the destination exists or cannot be written.
    """
    phases = Phases(2, progress)
    with opened_archive(path, progress=phases.next()) as (info, entries):
        manifest = info.manifest
        assert manifest is not None
        for name, data in (add_files or {}).items():
            if check_name(name).casefold() == MANIFEST_NAME.casefold():
                raise InvalidArchive(f"{name!r} is the manifest's place")
            entries[name] = from_bytes(name, data)
        check_no_collisions([MANIFEST_NAME, *entries])
        final = Path(destination)
        if final.is_dir():
            final /= f"{manifest.model.model_name}.mar"
        return place_archive(final, manifest, entries.values(), info.warnings, force=force, progress=phases.next())


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if _converted(path):
        with as_mar(path) as file:
            yield file
        return
    with os.fdopen(open_regular(path), "rb") as file:
        yield file


def _converted(path: Path) -> bool:
    return is_directory_archive(path) or is_tgz(path)


def _accepted(info: ArchiveInfo) -> ArchiveInfo:
    if info.problems:
        raise InvalidArchive(f"{info.path}: {info.problems[0]}")
    return info


def _examine(file: BinaryIO, path: Path, progress: Progress | None) -> ArchiveInfo:
    found = Scan(canonical=not _converted(path))
    manifest: Manifest | None = None
    config: ModelConfig | None = None
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    examples: tuple[ExampleInput, ...] = ()
    read = 0

    def tick(count: int) -> None:
        nonlocal read
        read += count
        if progress is not None:
            progress(read, found.size)

    try:
        scan(file, found, tick)
        raw, manifest = _manifest(file, found)
        found.canonical &= raw == encode_manifest(manifest)
        entries = _entries(file, found.files)
        findings = check_contents(manifest, entries, packing=False)
        config, warnings = findings.config, findings.warnings
        examples = read_examples(entries)
    except InvalidArchive as exc:
        problems = (exc.message,)
        found.canonical = False
    return ArchiveInfo(
        path, found.sha256, found.size, manifest, config, tuple(found.files), found.canonical, problems, warnings,
        examples,
    )  # fmt: skip


def _manifest(file: BinaryIO, found: Scan) -> tuple[bytes, Manifest]:
    for each in found.files:
        if each.name == MANIFEST_NAME:
            raw = read_all(_entry(file, each), MAX_MANIFEST_BYTES)
            return raw, parse_manifest(raw)
    raise InvalidArchive(f"has no {MANIFEST_NAME}: it is no model archive")


def _entry(file: BinaryIO, found: ArchiveFile) -> Entry:
    return Entry(found.name, found.size, found.name, partial(read_file, file, found))


def _entries(file: BinaryIO, files: tuple[ArchiveFile, ...] | list[ArchiveFile]) -> dict[str, Entry]:
    return {found.name: _entry(file, found) for found in files if found.name != MANIFEST_NAME}
