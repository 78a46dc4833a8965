"""What a published version holds: the files of its archive, and its golden inputs beside its golden answers.

Only an archive's directory and the files that are wanted are fetched, whatever its size. All of it blocks.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from marway.answers.difference import golden_of
from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, examples_in
from marway.errors import ArchiveCorrupt, InvalidArchive
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.registry import Registry

__all__ = ["ArchiveFile", "GoldenPair", "files_of", "golden_pairs"]

T = TypeVar("T")


class ArchiveFile(NamedTuple):
    """A file in an archive: sizes are bytes, as it is and as it is stored."""

    name: str
    size: int
    stored_size: int
    crc32: int


class GoldenPair(NamedTuple):
    """One golden example: what is sent, and what the version answered; None where no answer is published."""

    input: ExampleInput
    answer: GoldenAnswer | None


def files_of(registry: Registry, record: VersionRecord) -> tuple[ArchiveFile, ...]:
    """Return the files of a version's archive, in its order.

    Raises:
        ArchiveCorrupt: The archive is not in the registry, or is none.
        RegistryUnavailable: It cannot be read.
    """
    return _read(
        registry,
        record,
        # Published archives were read from end to end: their directory says what is in them.
        lambda archive: tuple(
            ArchiveFile(each.filename, each.file_size, each.compress_size, each.CRC) for each in archive.infolist()
        ),
    )


def golden_pairs(registry: Registry, record: VersionRecord) -> tuple[GoldenDocument | None, tuple[GoldenPair, ...]]:
    """Return a version's published golden answers, and each golden input of its archive with the answer to it.

    Raises:
        ArchiveCorrupt: The archive is not in the registry, or is none.
        InvalidRecord: The golden answers are gone, or are damaged.
        RegistryUnavailable: They cannot be read.
    """
    document = golden_of(registry, record)
    inputs = _read(registry, record, lambda archive: examples_in(archive, record.archive.kind))
    answers = document.examples if document is not None else ()
    pairs = (
        GoldenPair(each, answers[number].answer if number < len(answers) else None)
        for number, each in enumerate(inputs)
    )
    return document, tuple(pairs)


def _read(registry: Registry, record: VersionRecord, look: Callable[[zipfile.ZipFile], T]) -> T:
    try:
        with registry.open_archive(record.archive) as handle, zipfile.ZipFile(handle) as archive:
            return look(archive)
    except ObjectMissing as exc:
        raise ArchiveCorrupt(
            f"{registry.url} has no archive for {record.name} {record.version}: publish the version again"
        ) from exc
    except (InvalidArchive, zipfile.BadZipFile) as exc:
        raise ArchiveCorrupt(f"the archive of {record.name} {record.version} cannot be read: {exc}") from exc
