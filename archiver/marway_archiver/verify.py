"""Golden examples that a finished archive carries: found with their known answers, run again, and compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from marway.answers.difference import golden_difference
from marway.answers.golden import MAX_GOLDEN_BYTES, ExampleInput, GoldenAnswer, GoldenDocument, Tolerance, decode_golden
from marway.archives.entries import Entry, from_file, read_all
from marway.bundles import BUNDLE_SUFFIX
from marway.errors import ArchiveCorrupt, InvalidArchive, VersionNotFound
from marway.objects import ObjectMissing
from marway.registry import Registry
from marway_archiver.archives import ArchiveInfo, opened_archive
from marway_archiver.bundles.checking import BundleInfo, check_bundle
from marway_archiver.packing import StrPath
from marway_archiver.progress import Progress
from marway_archiver.proving.examples import Example
from marway_archiver.proving.proof import Proved, answer_examples
from marway_archiver.proving.runs import ProofPlan, Run, run_examples, status_problem

__all__ = [
    "Verdict",
    "Verification",
    "golden_beside",
    "golden_of_registry",
    "known_golden",
    "prove",
    "read_golden",
    "verify_archive",
    "verify_bundle",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """An example's answer, the seconds of its faster single call inside the handler, and what is wrong, if anything."""

    sent: ExampleInput
    answer: GoldenAnswer
    seconds: float
    problem: str | None


@dataclass(frozen=True, slots=True)
class Verification:
    """What running an archive's golden examples gave.

    Attributes:
        archive: What the archive holds.
        examples: One verdict each.
        run: Which batches answered as single calls did, what ran, and for how long.
        batch_problem: What is wrong with batches, or None: one answers differently, and nobody said so before.
        golden: What the answers were compared with, if there was anything.
    """

    archive: ArchiveInfo
    examples: tuple[Verdict, ...]
    run: Run
    batch_problem: str | None
    golden: GoldenDocument | None

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return self.batch_problem is None and all(each.problem is None for each in self.examples)


def golden_beside(archive: Path) -> Path:
    """Return where `marway pack` writes the golden document of ``archive``."""
    name = archive.name.removesuffix(".mar").removesuffix(BUNDLE_SUFFIX)
    return archive.with_name(f"{name}.golden.json")


def read_golden(path: Path) -> GoldenDocument:
    """Read a golden document from a file.

    Raises:
        InvalidArchive, InvalidRecord: It cannot be read, or is none.
    """
    return decode_golden(read_all(from_file(path.name, path), MAX_GOLDEN_BYTES), source=str(path))


def golden_of_registry(registry: Registry, info: ArchiveInfo | BundleInfo) -> GoldenDocument | None:
    """Return the golden document that a registry has for an archive, found by its name and version, or None.

    Raises:
        ArchiveCorrupt: The record names one that is not there.
        InvalidRecord: The document is damaged.
    """
    try:
        record = registry.record(*info.model)
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


def known_golden(path: Path, given: StrPath | None, info: ArchiveInfo | BundleInfo) -> GoldenDocument | None:
    """Return the golden document that came with an archive: the one given, else the one beside it that is of it."""
    beside = golden_beside(path)
    if given is None and not (info.examples and beside.is_file()):
        return None
    document = read_golden(beside if given is None else Path(given))
    if document.archive_sha256 == info.sha256:
        _check_examples(info, document)
        return document
    if given is None:
        return None  # of another pack: no matter
    raise InvalidArchive(f"{given} is of another archive (sha256 {document.archive_sha256[:12]}…)")


def prove(info: ArchiveInfo, entries: Mapping[str, Entry], known: GoldenDocument | None, plan: ProofPlan) -> Proved:
    """Answer the golden inputs of an open archive, and compare with its ``known`` answers if it has some.

    Returns:
        What they gave; with the known document in place of this run's that reproduced it in all.

    Raises:
        InvalidArchive: An example fails, or is not answered as the golden document says.
        LoadFailed: The handler does not load, or takes too long.
    """
    assert info.manifest is not None
    given = [Example(each.data, content_type=each.content_type, status=each.status) for each in info.examples]
    proved = answer_examples(info.manifest, entries, given, info.examples, plan).of_archive(info.sha256)
    document, proof, _ = proved
    if known is None:
        return proved
    if document is None:
        return Proved(known)
    for index, example in enumerate(document.examples):
        found = golden_difference(known, index, example.answer, tolerance=plan.tolerance)
        if found is not None:
            raise InvalidArchive(f"{info.path}: example {index + 1} is not answered as when it was packed: {found}")
    if proof is not None and (known.source, known.batch_sizes) == (document.source, document.batch_sizes):
        return proved._replace(golden=known, proof=replace(proof, golden_sha256=known.sha256))
    return proved


def verify_archive(
    archive: StrPath,
    *,
    golden: GoldenDocument | None = None,
    tolerance: Tolerance | None = None,
    plan: ProofPlan | None = None,
    progress: Progress | None = None,
) -> Verification:
    """Check an archive, load its handler in a process of its own, and run its golden examples.

    Args:
        archive: The `.mar` file.
        golden: Compare with these answers.
        tolerance: How far numbers may lie apart; that of ``golden`` otherwise.
        plan: Other bounds.
        progress: Told about bytes checked.

    Raises:
        InvalidArchive: It is refused, or ``golden`` is of another archive.
        LoadFailed: The handler does not load, dies, or takes too long.
        ModuleNotFoundError: TorchServe is not installed.
    """
    plan = plan or ProofPlan()
    plan = replace(plan, tolerance=tolerance or (plan if golden is None else golden).tolerance)
    with opened_archive(Path(archive), progress=progress) as (info, entries):
        assert info.manifest is not None
        if golden is not None:
            _check_golden(info, golden)
        run = run_examples(info.manifest, entries, info.examples, plan)
    verdicts = []
    for index, (sent, answer, seconds) in enumerate(zip(info.examples, run.answers, run.seconds, strict=True)):
        if golden is None:
            problem = status_problem(sent, answer)
        else:
            problem = golden_difference(golden, index, answer, tolerance=plan.tolerance)
        if problem is None and run.unsteady[index] is not None:
            problem = f"answers differently each time: {run.unsteady[index]}"
        verdicts.append(Verdict(sent, answer, seconds, problem))
    batch_problem = run.batch_reason if run.batch_difference and (golden is None or golden.batch) else None
    return Verification(info, tuple(verdicts), run, batch_problem, golden)


def verify_bundle(
    bundle: StrPath, *, golden: GoldenDocument | None = None, progress: Progress | None = None
) -> BundleInfo:
    """Check a bundle, and that a golden document is of it; no server is asked.

    Raises:
        InvalidArchive: It is refused, or ``golden`` is of another archive.
    """
    info = check_bundle(bundle, progress=progress)
    if golden is not None:
        _check_golden(info, golden)
    return info


def _check_golden(info: ArchiveInfo | BundleInfo, golden: GoldenDocument) -> None:
    """Refuse a golden document that is of another archive."""
    if golden.archive_sha256 != info.sha256:
        theirs = golden.archive_sha256[:12]
        raise InvalidArchive(f"{info.path} has sha256 {info.sha256[:12]}…, the golden document is of {theirs}…")
    _check_examples(info, golden)


def _check_examples(info: ArchiveInfo | BundleInfo, golden: GoldenDocument) -> None:
    """Refuse a golden document that does not speak of the examples that an archive carries."""
    theirs = [(each.input_sha256, each.content_type) for each in golden.examples]
    if theirs != [(each.sha256, each.content_type) for each in info.examples]:
        raise InvalidArchive(f"{info.path}: its golden document has other examples than the archive")
