"""Proves the golden examples that a finished archive carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from marway.answers.difference import golden_difference
from marway.answers.golden import MAX_GOLDEN_BYTES, GoldenDocument, decode_golden
from marway.errors import ArchiveCorrupt, InvalidArchive, VersionNotFound
from marway.objects import ObjectMissing
from marway.registry import Registry
from marway_archiver.archives import ArchiveInfo
from marway_archiver.entries import Entry, from_file, read_all
from marway_archiver.examples import Example
from marway_archiver.packing import StrPath
from marway_archiver.proof import PackProof, Prover
from marway_archiver.proving import ProofPlan

__all__ = [
    "check_examples",
    "golden_beside",
    "golden_of_registry",
    "known_golden",
    "of_archive",
    "prove",
    "read_golden",
]


def golden_beside(archive: Path) -> Path:
    """Return where `marway pack` writes the golden document of ``archive``."""
    return archive.with_name(f"{archive.name.removesuffix('.mar')}.golden.json")


def read_golden(path: Path) -> GoldenDocument:
    """Read a golden document from a file.

    Raises:
        InvalidArchive, InvalidRecord: It cannot be read, or is none.
    """
    return decode_golden(read_all(from_file(path.name, path), MAX_GOLDEN_BYTES), source=str(path))


def golden_of_registry(registry: Registry, info: ArchiveInfo) -> GoldenDocument | None:
    """Return the golden document that a registry has for an archive, found by its name and version, or None.

    Raises:
        ArchiveCorrupt: The record names one that is not there.
        InvalidRecord: The document is damaged.
    """
    assert info.manifest is not None
    model = info.manifest.model
    try:
        record = registry.record(model.model_name, model.model_version)
    except VersionNotFound:
        return None
    if record.archive.sha256 != info.sha256 or record.golden_sha256 is None:
        return None
    try:
        data = registry.golden(record.golden_sha256)
    except ObjectMissing as exc:
        raise ArchiveCorrupt(
            f"{registry.url} has lost the golden answers of {record.name} {record.version}: publish it again"
        ) from exc
    return decode_golden(data, source=f"golden/{record.golden_sha256}.json")


def known_golden(path: Path, given: StrPath | None, info: ArchiveInfo) -> GoldenDocument | None:
    """Return the golden document that came with an archive."""
    beside = golden_beside(path)
    if given is None:
        if not (info.examples and beside.is_file()):
            return None
        document = read_golden(beside)
        return document if document.archive_sha256 == info.sha256 else None  # of another pack: no matter
    document = read_golden(Path(given))
    if document.archive_sha256 != info.sha256:
        raise InvalidArchive(f"{given} is of another archive (sha256 {document.archive_sha256[:12]}…)")
    return document


def check_examples(info: ArchiveInfo, golden: GoldenDocument) -> None:
    """Refuse a golden document that does not speak of the examples that an archive carries.

    Raises:
        InvalidArchive: They are others.
    """
    theirs = [(each.input_sha256, each.content_type) for each in golden.examples]
    if theirs != [(each.sha256, each.content_type) for each in info.examples]:
        raise InvalidArchive(f"{info.path}: its golden document has other examples than the archive")


def prove(
    info: ArchiveInfo, entries: Mapping[str, Entry], known: GoldenDocument | None, plan: ProofPlan
) -> tuple[GoldenDocument | None, PackProof | None, tuple[str, ...]]:
    """Answer the golden inputs of an open archive, and compare with its ``known`` answers if it has some.

    Returns:
        The golden document (the known one, if this run reproduced it in all), the proof where the handler was run, and
        warnings.

    Raises:
        InvalidArchive: An example fails, or is not answered as the golden document says.
        LoadFailed: The handler does not load, or takes too long.
    """
    assert info.manifest is not None
    if known is not None:
        check_examples(info, known)
    given = [Example(each.data, content_type=each.content_type, status=each.status) for each in info.examples]
    answered = Prover(plan).answer(info.manifest, entries, given, info.examples)
    document, proof = answered.of_archive(info.sha256)
    if known is None:
        return document, proof, answered.warnings
    if document is None:
        return known, None, ()
    for index, answer in enumerate(answered.answers or ()):
        found = golden_difference(known, index, answer, tolerance=plan.tolerance)
        if found is not None:
            raise InvalidArchive(f"{info.path}: example {index + 1} is not answered as when it was packed: {found}")
    if proof is not None and (known.source, known.batch_sizes) == (document.source, document.batch_sizes):
        return known, replace(proof, golden_sha256=known.sha256), answered.warnings
    return document, proof, answered.warnings


def of_archive(
    sha256: str, document: GoldenDocument | None, proof: PackProof | None
) -> tuple[GoldenDocument | None, PackProof | None]:
    """Return what was proved of an archive, for the same files in other bytes."""
    if document is not None:
        document = document.model_copy(update={"archive_sha256": sha256})
        if proof is not None:
            proof = replace(proof, archive_sha256=sha256, golden_sha256=document.sha256)
    return document, proof
