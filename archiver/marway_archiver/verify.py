"""Runs the golden examples of an archive again, and says whether everything still agrees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from marway.answers.difference import golden_difference
from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, Tolerance
from marway.errors import InvalidArchive
from marway_archiver.archives import ArchiveInfo, opened_archive
from marway_archiver.carried import check_examples
from marway_archiver.packing import StrPath
from marway_archiver.progress import Progress
from marway_archiver.proving import ProofPlan, Run, run_examples, status_problem

__all__ = ["Verdict", "Verification", "verify_archive"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one example.

    Attributes:
        sent: The input.
        answer: What the handler answered.
        seconds: Of the faster of its single calls, inside the handler.
        problem: What is wrong with the answer, or None.
    """

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
        batch_sizes: Rows of batches that answered as single calls did.
        batch_reason: Why batches are not to be used, or None.
        batch_problem: What is wrong about that, or None: a batch answers differently, and nobody said so before.
        golden: What the answers were compared with, if there was anything.
        versions: Of `torchserve`, `torch` and `python`.
        load_s: Seconds until the handler was loaded.
        duration_s: Seconds in all.
    """

    archive: ArchiveInfo
    examples: tuple[Verdict, ...]
    batch_sizes: tuple[int, ...]
    batch_reason: str | None
    batch_problem: str | None
    golden: GoldenDocument | None
    versions: Mapping[str, str]
    load_s: float
    duration_s: float

    @property
    def ok(self) -> bool:
        """Whether everything agrees."""
        return self.batch_problem is None and all(each.problem is None for each in self.examples)


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
    if tolerance is None and golden is not None:
        tolerance = golden.tolerance
    if tolerance is not None:
        plan = replace(plan, tolerance=tolerance)
    with opened_archive(Path(archive), progress=progress) as (info, entries):
        assert info.manifest is not None
        if golden is not None:
            _check_same(info, golden)
        run = run_examples(info.manifest, entries, info.examples, plan)
    verdicts = tuple(
        Verdict(sent, answer, seconds, _problem(index, sent, answer, run, golden, plan.tolerance))
        for index, (sent, answer, seconds) in enumerate(zip(info.examples, run.answers, run.seconds, strict=True))
    )
    return Verification(
        archive=info,
        examples=verdicts,
        batch_sizes=run.batch_sizes,
        batch_reason=run.batch_reason,
        batch_problem=run.batch_reason if run.batch_difference and (golden is None or golden.batch) else None,
        golden=golden,
        versions=run.versions,
        load_s=run.load_s,
        duration_s=run.duration_s,
    )


def _check_same(info: ArchiveInfo, golden: GoldenDocument) -> None:
    if golden.archive_sha256 != info.sha256:
        raise InvalidArchive(
            f"{info.path} has sha256 {info.sha256[:12]}…, the golden document is of {golden.archive_sha256[:12]}…"
        )
    check_examples(info, golden)


def _problem(
    index: int, sent: ExampleInput, answer: GoldenAnswer, run: Run, golden: GoldenDocument | None, tolerance: Tolerance
) -> str | None:
    if golden is not None:
        found = golden_difference(golden, index, answer, tolerance=tolerance)
    else:
        found = status_problem(sent, answer)
    if found is None and run.unsteady[index] is not None:
        return f"answers differently each time: {run.unsteady[index]}"
    return found
