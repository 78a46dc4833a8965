"""From golden examples to what is stored: their golden document, and the proof that the handler gave it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, Tolerance
from marway.archives.entries import Entry
from marway_archiver.contents.manifest import Manifest
from marway_archiver.proving.examples import Example, body_value
from marway_archiver.proving.handler_process import has_torchserve
from marway_archiver.proving.runs import Predict, ProofPlan, Run, answers_of_callable, check_run, run_examples

__all__ = ["PackProof", "Proved", "answer_examples", "document_of"]

_UNKNOWN = "0" * 64  # the digest of what is not written yet
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


class Proved(NamedTuple):
    """What golden examples gave: their answers, if there are any, the proof where the handler was run, and warnings."""

    golden: GoldenDocument | None = None
    proof: PackProof | None = None
    warnings: tuple[str, ...] = ()

    def of_archive(self, sha256: str) -> Proved:
        """Return the same for the archive of these files that has this digest."""
        if self.golden is None:
            return self
        golden = self.golden.model_copy(update={"archive_sha256": sha256})
        if self.proof is None:
            return self._replace(golden=golden)
        return self._replace(
            golden=golden, proof=replace(self.proof, archive_sha256=sha256, golden_sha256=golden.sha256)
        )


def answer_examples(
    manifest: Manifest,
    entries: Mapping[str, Entry],
    given: Sequence[Example],
    inputs: Sequence[ExampleInput],
    plan: ProofPlan,
    predict: Predict | None = None,
) -> Proved:
    """Answer golden examples, ``inputs`` as clients send them; refuse them if the handler fails.

    The handler of ``manifest`` and ``entries`` answers where TorchServe is installed, else ``predict``, else nothing
    does. The archive has no digest yet: see `Proved.of_archive`.

    Raises:
        InvalidArchive: An example failed, or gave something else than was expected.
        LoadFailed: The handler does not load, or takes too long.
    """
    if not inputs:
        return Proved()
    run: Run | None = None
    if has_torchserve():
        run = run_examples(manifest, entries, inputs, plan)
        check_run(given, inputs, run, plan.tolerance)
        answers, reason, warnings = run.answers, run.batch_reason, tuple(_surprises(inputs, run))
    elif predict is not None:
        answers = answers_of_callable(given, inputs, predict, plan.tolerance)
        reason, warnings = _NOT_RUN, (_not_batched(_NOT_RUN),)
    else:
        warning = (
            "the golden examples are not answered: TorchServe is not installed here, and no predict callable was "
            "given; requests will be served one at a time"
        )
        return Proved(warnings=(warning,))
    golden = document_of(inputs, answers, run, tolerance=plan.tolerance, batch_reason=reason)
    if run is None:
        return Proved(golden, None, warnings)
    return Proved(golden, PackProof(_UNKNOWN, _UNKNOWN, run.versions, run.duration_s, run.streaming), warnings)


def document_of(
    inputs: Sequence[ExampleInput],
    answers: Sequence[GoldenAnswer],
    run: Run | None,
    *,
    tolerance: Tolerance,
    batch_reason: str | None,
    archive_sha256: str = _UNKNOWN,
) -> GoldenDocument:
    """Return the golden document of answers that a handler's ``run`` gave, or, without one, a callable."""
    return GoldenDocument(
        archive_sha256=archive_sha256,
        source="callable" if run is None else "handler",
        tolerance=tolerance,
        examples=tuple(
            GoldenExample(input_sha256=sent.sha256, content_type=sent.content_type, answer=answer)
            for sent, answer in zip(inputs, answers, strict=True)
        ),
        batch=batch_reason is None,
        batch_sizes=run.batch_sizes if run is not None and batch_reason is None else (),
        batch_reason=batch_reason,
    )


def _surprises(inputs: Sequence[ExampleInput], run: Run) -> Iterator[str]:
    if run.streaming:
        yield "the handler sends its answers in pieces: the version will be declared streaming when it is published"
    elif run.batch_reason is not None:
        yield _not_batched(run.batch_reason)
    elif _one_shape([sent for sent, answer in zip(inputs, run.answers, strict=True) if answer.kind != "error"]):
        yield (
            "all golden examples have one shape: batches of inputs of different lengths were not tried, and a handler "
            "that pads them may answer them otherwise than alone; give examples of other lengths"
        )


def _not_batched(reason: str) -> str:
    return f"requests will be served one at a time: {reason}"


def _one_shape(inputs: Sequence[ExampleInput]) -> bool:
    """Return whether all inputs have the same lengths, and any at all: then no batch of them needs padding."""
    shapes = [_shape(body_value(each)) for each in inputs]
    return bool(shapes) and shapes[0] is not None and all(shape == shapes[0] for shape in shapes)


def _shape(value: Any) -> Any:
    """Return the lengths of texts, bytes and lists in ``value``; None where there is none."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    if isinstance(value, list):
        inner = [_shape(each) for each in value]
        return len(value), inner[0] if inner and all(each == inner[0] for each in inner) else tuple(inner)
    if isinstance(value, dict):
        found = {key: _shape(each) for key, each in value.items()}
        return found if any(each is not None for each in found.values()) else None
    return None
