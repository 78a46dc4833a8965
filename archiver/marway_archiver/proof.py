"""From golden examples to what is stored: their golden document, and the proof that the handler gave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument
from marway_archiver.entries import Entry
from marway_archiver.examples import Example
from marway_archiver.handler_process import has_torchserve
from marway_archiver.manifest import Manifest
from marway_archiver.proving import (
    Predict,
    ProofPlan,
    Run,
    answers_of_callable,
    check_run,
    golden_document,
    run_examples,
)
from marway_archiver.shapes import one_shape

__all__ = ["Answered", "PackProof", "Prover"]

_NOT_RUN = "the handler was not run: TorchServe is not installed here"


@dataclass(frozen=True, slots=True)
class PackProof:
    """That an archive's handler was loaded and gave its golden answers, where it was packed.

    Attributes:
        archive_sha256: The archive.
        golden_sha256: The golden document.
        versions: Of `torchserve`, `torch` and `python`.
        duration_s: How long it took, with loading, in seconds.
        streaming: Whether the handler sent an answer in pieces.
    """

    archive_sha256: str
    golden_sha256: str
    versions: Mapping[str, str]
    duration_s: float
    streaming: bool = False


@dataclass(frozen=True, slots=True)
class Answered:
    """Golden examples with their answers, before the archive has its digest.

    Attributes:
        inputs: The golden inputs.
        answers: One for each; None where nothing could answer.
        run: How the handler answered, where it was run.
        plan: How it was.
        warnings: Why batches will not be used, or why there are no answers.
    """

    inputs: tuple[ExampleInput, ...]
    answers: tuple[GoldenAnswer, ...] | None
    run: Run | None
    plan: ProofPlan
    warnings: tuple[str, ...]

    def of_archive(self, sha256: str) -> tuple[GoldenDocument | None, PackProof | None]:
        """Return what is stored, now that the archive has a digest."""
        if self.answers is None:
            return None, None
        golden = golden_document(
            sha256, self.inputs, self.answers, tolerance=self.plan.tolerance, run=self.run, reason=_NOT_RUN
        )
        if self.run is None:
            return golden, None
        return golden, PackProof(sha256, golden.sha256, self.run.versions, self.run.duration_s, self.run.streaming)


class Prover:
    """Gets golden examples answered: by the handler, else by a callable, else not at all.

    Args:
        plan: Bounds of running the handler.
        predict: Answers in place of the handler where TorchServe is not installed.
    """

    def __init__(self, plan: ProofPlan, predict: Predict | None = None) -> None:
        self._plan, self._predict = plan, predict

    def answer(
        self,
        manifest: Manifest,
        entries: Mapping[str, Entry],
        given: Sequence[Example],
        inputs: Sequence[ExampleInput],
    ) -> Answered:
        """Answer the golden inputs, and refuse them if the handler fails.

        Raises:
            InvalidArchive: An example failed, or gave something else than was expected.
            LoadFailed: The handler does not load, or takes too long.
        """
        if not inputs:
            return Answered((), None, None, self._plan, ())
        if has_torchserve():
            run = run_examples(manifest, entries, inputs, self._plan)
            check_run(given, inputs, run, self._plan.tolerance)
            return Answered(tuple(inputs), run.answers, run, self._plan, tuple(_surprises(inputs, run)))
        if self._predict is not None:
            answers = answers_of_callable(given, inputs, self._predict, self._plan.tolerance)
            return Answered(tuple(inputs), answers, None, self._plan, (_not_batched(_NOT_RUN),))
        warning = (
            "the golden examples are not answered: TorchServe is not installed here, and no predict callable was "
            "given; requests will be served one at a time"
        )
        return Answered(tuple(inputs), None, None, self._plan, (warning,))


def _surprises(inputs: Sequence[ExampleInput], run: Run) -> Iterator[str]:
    if run.streaming:
        yield "the handler sends its answers in pieces: the version will be declared streaming when it is published"
    elif run.batch_reason is not None:
        yield _not_batched(run.batch_reason)
    elif one_shape([sent for sent, answer in zip(inputs, run.answers, strict=True) if answer.kind != "error"]):
        yield (
            "all golden examples have one shape: batches of inputs of different lengths were not tried, and a handler "
            "that pads them may answer them otherwise than alone; give examples of other lengths"
        )


def _not_batched(reason: str) -> str:
    return f"requests will be served one at a time: {reason}"
