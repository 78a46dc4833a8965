"""Reads archives that may be anybody's: inspect, check, and rewrite them canonically.

Besides a `.mar` they may be a `.tar.gz` or a directory, as torch-model-archiver makes them; these are never canonical.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from marway.answers.golden import ExampleInput
from marway.archives.entries import MANIFEST_NAME, Entry, check_no_collisions, open_regular, read_all
from marway.errors import InvalidArchive
from marway.refs import check_model_name, check_version
from marway_archiver.contents.manifest import MAX_MANIFEST_BYTES, Manifest, encode_manifest, parse_manifest
from marway_archiver.contents.model_config import ModelConfig
from marway_archiver.contents.rules import Findings, check_contents
from marway_archiver.format.other_formats import as_mar, is_other_format
from marway_archiver.format.zipscan import ArchiveFile, Scan, read_file, scan
from marway_archiver.packing import PackedArchive, StrPath, added, place_archive
from marway_archiver.progress import Meter, Phases, Progress
from marway_archiver.proving.examples import read_examples

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

    @property
    def model(self) -> tuple[str, str]:
        """The model's name and version; only of an archive whose manifest could be read."""
        assert self.manifest is not None
        return self.manifest.model.model_name, self.manifest.model.model_version


def inspect_archive(path: StrPath, *, progress: Progress | None = None) -> ArchiveInfo:
    """Read a `.mar` from end to end and say what it holds and what is wrong with it.

    Raises:
        InvalidArchive: There is no file that could be read.
    """
    with _examined(Path(path), progress) as (info, _):
        return info


def check_archive(path: StrPath, *, progress: Progress | None = None) -> ArchiveInfo:
    """Read a `.mar` from end to end; nothing is written or run.

    Raises:
        InvalidArchive: It is hostile, damaged, or something TorchServe would misread.
    """
    with opened_archive(path, progress=progress) as (info, _):
        return info


@contextmanager
def opened_archive(
    path: StrPath, *, progress: Progress | None = None
) -> Iterator[tuple[ArchiveInfo, dict[str, Entry]]]:
    """Check an archive, and give what it holds while it is open: its files by name, without the manifest.

    Raises:
        InvalidArchive: As `check_archive`.
    """
    with _examined(Path(path), progress) as (info, entries):
        if info.problems:
            raise InvalidArchive(f"{info.path}: {info.problems[0]}")
        yield info, entries


def repack(
    path: StrPath,
    destination: StrPath,
    *,
    force: bool = False,
    model_name: str | None = None,
    version: str | None = None,
    add_files: Mapping[str, bytes] | None = None,
    progress: Progress | None = None,
) -> PackedArchive:
    """Check an archive, then write it canonically; a canonical one gives the same bytes again.

    The manifest keeps what it says, but for `createdOn` (`marway_archiver.contents.manifest`); directory entries,
    comments, times and modes are dropped.

    Args:
        path: An archive such as torch-model-archiver makes.
        destination: A file, or a directory to put `MODEL_NAME.mar` in.
        force: Replace a destination that exists.
        model_name: Another name than the manifest says.
        version: Another version than the manifest says.
        add_files: Further files by their name in the archive, in place of those of the same name.
        progress: Called as bytes are done: checking is one half of it, writing the other.

    Raises:
        InvalidArchive: As `check_archive`; or the destination exists or cannot be written.
        InvalidReference: The name or the version cannot be one.
    """
    phases = Phases(2, progress)
    with opened_archive(path, progress=phases.next()) as (info, entries):
        manifest = info.manifest
        assert manifest is not None
        changes = {
            "model_name": check_model_name(model_name or manifest.model.model_name),
            "model_version": check_version(version or manifest.model.model_version),
        }
        manifest = manifest.model_copy(update={"model": manifest.model.model_copy(update=changes)})
        for name, data in (add_files or {}).items():
            entries[name] = added(name, data)
        check_no_collisions([MANIFEST_NAME, *entries])
        final = Path(destination)
        if final.is_dir():
            final /= f"{manifest.model.model_name}.mar"
        return place_archive(final, manifest, entries.values(), info.warnings, force=force, progress=phases.next())


@contextmanager
def _examined(path: Path, progress: Progress | None) -> Iterator[tuple[ArchiveInfo, dict[str, Entry]]]:
    converted = is_other_format(path)
    opened: AbstractContextManager[BinaryIO] = as_mar(path) if converted else os.fdopen(open_regular(path), "rb")
    with opened as file:
        found = Scan(canonical=not converted)
        meter = Meter(os.fstat(file.fileno()).st_size, 1, progress)
        entries: dict[str, Entry] = {}
        manifest: Manifest | None = None
        findings = Findings(None, ())
        problems: tuple[str, ...] = ()
        examples: tuple[ExampleInput, ...] = ()
        try:
            scan(file, found, meter.tick)
            entries |= {each.name: _entry(file, each) for each in found.files}
            if MANIFEST_NAME not in entries:
                raise InvalidArchive(f"has no {MANIFEST_NAME}: it is no model archive")
            raw = read_all(entries.pop(MANIFEST_NAME), MAX_MANIFEST_BYTES)
            manifest = parse_manifest(raw)
            found.canonical &= raw == encode_manifest(manifest)
            findings = check_contents(manifest, entries, packing=False)
            examples = read_examples(entries)
        except InvalidArchive as exc:
            problems = (exc.message,)
            found.canonical = False
        yield ArchiveInfo(
            path, found.sha256, found.size, manifest, findings.config, tuple(found.files), found.canonical, problems,
            findings.warnings, examples,
        ), entries  # fmt: skip


def _entry(file: BinaryIO, found: ArchiveFile) -> Entry:
    return Entry(found.name, found.size, found.name, partial(read_file, file, found))
