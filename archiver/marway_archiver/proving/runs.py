"""Runs golden examples: each alone, then in batches, and says whether they agree."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from marway.answers.difference import difference, shown_value, value_difference
from marway.answers.encoding import answer_json
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenAnswer, Kind, Tolerance
from marway.archives.entries import Entry
from marway.errors import InvalidArchive, clip
from marway_archiver.contents.manifest import Manifest
from marway_archiver.proving.batch_plan import equal_answers, plan_batches, try_batches
from marway_archiver.proving.examples import UNSET, Example, body_value, input_line
from marway_archiver.proving.handler_process import HandlerProcess, start_handler

__all__ = ["Predict", "ProofPlan", "Run", "answers_of_callable", "check_run", "run_examples"]

Predict = Callable[[list[Any]], Sequence[Any]]
"""Given inputs as a handler sees them (JSON values, str, bytearray), returns as many answers."""

_NO_ROOM = "batches of 1 row were asked for"


@dataclass(frozen=True, slots=True)
class ProofPlan:
    """How golden examples are run.

    Attributes:
        tolerance: How far numbers of equal answers may lie apart.
        max_batch_rows: Rows of the largest batch; 1 tries none.
        max_batch_bytes: Bytes of the largest batch.
        load_timeout_s: How long loading the handler may take.
        call_timeout_s: How long each call may take.
    """

    tolerance: Tolerance = DEFAULT_TOLERANCE
    max_batch_rows: int = 32
    max_batch_bytes: int = 4 * 1024 * 1024
    load_timeout_s: float = 300.0
    call_timeout_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Run:
    """What golden examples gave.

    Attributes:
        answers: Of the single calls, in the order of the examples.
        seconds: Of each example's faster single call, inside the handler.
        unsteady: For each example, how its second single call differed, or None.
        batch_sizes: Sizes of batches that answered as single calls did.
        batch_reason: Why batches are not to be used, or None.
        batch_difference: Whether that is because a batch answered differently.
        versions: Of `torchserve`, `torch` and `python`.
        load_s: Seconds until the handler was loaded.
        duration_s: Seconds in all.
        streaming: Whether the handler sent an answer in pieces.
    """

    answers: tuple[GoldenAnswer, ...]
    seconds: tuple[float, ...]
    unsteady: tuple[str | None, ...]
    batch_sizes: tuple[int, ...]
    batch_reason: str | None
    batch_difference: bool
    versions: Mapping[str, str]
    load_s: float
    duration_s: float
    streaming: bool = False


def run_examples(
    manifest: Manifest, entries: Mapping[str, Entry], inputs: Sequence[ExampleInput], plan: ProofPlan
) -> Run:
    """Load an archive's handler in a process of its own and run its golden inputs, if there are any.

    Raises:
        LoadFailed: The handler does not load, dies, or takes too long.
        ModuleNotFoundError: TorchServe is not installed.
    """
    started = time.monotonic()
    with start_handler(
        manifest, entries.values(), inputs, load_timeout_s=plan.load_timeout_s, call_timeout_s=plan.call_timeout_s
    ) as handler:
        first = [handler.call([index]) for index in range(len(inputs))]
        answers = tuple(called.answers[0] for called in first)
        batch_sizes, reason, differs = _try_batches(handler, inputs, answers, plan)
        # Again, in another order and after the batches: what depends on what came before shows now.
        second = {index: handler.call([index]) for index in reversed(range(len(inputs)))}
        unsteady = tuple(
            difference(answer, second[index].answers[0], plan.tolerance) for index, answer in enumerate(answers)
        )
        return Run(
            answers=answers,
            seconds=tuple(min(called.seconds, second[index].seconds) for index, called in enumerate(first)),
            unsteady=unsteady,
            batch_sizes=batch_sizes,
            batch_reason=reason,
            batch_difference=differs,
            versions=handler.versions,
            load_s=handler.load_s,
            duration_s=time.monotonic() - started,
            streaming=any(called.pieces for called in first),
        )


def _try_batches(
    handler: HandlerProcess, inputs: Sequence[ExampleInput], answers: Sequence[GoldenAnswer], plan: ProofPlan
) -> tuple[tuple[int, ...], str | None, bool]:
    """Return the sizes that answered as single calls did, why there are no more, and whether one differed."""
    if plan.max_batch_rows < 2:
        return (), _NO_ROOM, False
    # A row that a handler raises for fails its whole batch, and the sidecar calls again row by row: it proves nothing.
    usable = [index for index, answer in enumerate(answers) if answer.kind != "error"]
    groups = equal_answers([answers[index] for index in usable], plan.tolerance)
    reason = _too_few(inputs, usable, groups)
    if reason is not None:
        return (), reason, False
    sizes_bytes = [len(inputs[index].data) for index in usable]
    batches = plan_batches(groups, sizes_bytes, max_rows=plan.max_batch_rows, max_bytes=plan.max_batch_bytes)
    sizes, found = try_batches(
        [[usable[place] for place in batch] for batch in batches],
        answers,
        lambda rows: handler.call(rows).answers,
        plan.tolerance,
        name=lambda index: f" (example {index + 1})",
    )
    return sizes, found, found is not None


def _too_few(inputs: Sequence[ExampleInput], usable: Sequence[int], groups: Sequence[int]) -> str | None:
    if not inputs:
        return "there are no golden examples"
    if len({(inputs[index].data, inputs[index].content_type) for index in usable}) < 2:
        return "batches need at least 2 different golden examples that the handler does not raise for"
    if len(set(groups)) < 2:
        return "all golden examples have the same answer, so an answer in the wrong row would not show"
    return None


def check_run(given: Sequence[Example], inputs: Sequence[ExampleInput], run: Run, tolerance: Tolerance) -> None:
    """Refuse examples that failed, that do not give what was expected of them, or not twice the same.

    Raises:
        InvalidArchive: With the example, what was expected and what came.
    """
    for index, (example, sent, answer) in enumerate(zip(given, inputs, run.answers, strict=True)):
        where = f"example {index + 1} ({input_line(sent)})"
        problem = status_problem(sent, answer)
        if problem is not None:
            raise InvalidArchive(f"{where}: {problem}")
        found = output_difference(example.output, answer, tolerance)
        if found is not None:
            raise InvalidArchive(f"{where}: the handler does not give the output that the example gives: {found}")
        if run.unsteady[index] is not None:
            raise InvalidArchive(
                f"{where}: the handler answers differently each time ({run.unsteady[index]}): fix what it draws at "
                "random, give a larger --tolerance, or leave the example away"
            )


def status_problem(sent: ExampleInput, answer: GoldenAnswer) -> str | None:
    """Return what is wrong with the status of an answer, or None."""
    if sent.status is not None and answer.status != sent.status:
        return f"status {sent.status} was expected, {answer.status} came: {_message(answer)}"
    if sent.status is None and (answer.status >= 400 or answer.kind == "error"):
        return f"the handler fails with status {answer.status}: {_message(answer)}"
    return None


def _message(answer: GoldenAnswer) -> str:
    return clip(answer.value if isinstance(answer.value, str) else shown_value(answer.value), 400)


def output_difference(output: Any, answer: GoldenAnswer, tolerance: Tolerance) -> str | None:
    """Return how an answer differs from the output that a person wrote down, if one did, or None."""
    if output is UNSET:
        return None
    try:
        expected = json.loads(answer_json(output, nonfinite="allow"))
    except (TypeError, ValueError, RecursionError) as exc:
        raise InvalidArchive(f"an example's output is no JSON value: {exc}") from exc
    value = answer.value
    if answer.kind == "tensor" and not isinstance(expected, dict):
        value = value["values"]
    if answer.kind == "text" and not isinstance(expected, str):
        with suppress(ValueError, RecursionError):
            value = json.loads(value)
    return value_difference(expected, value, tolerance)


def answers_of_callable(
    given: Sequence[Example], inputs: Sequence[ExampleInput], predict: Predict, tolerance: Tolerance
) -> tuple[GoldenAnswer, ...]:
    """Return what ``predict`` answers to the golden inputs, for where the handler itself cannot be run."""
    outputs = list(predict([body_value(each) for each in inputs]))
    if len(outputs) != len(inputs):
        raise InvalidArchive(f"predict gave {len(outputs)} answers for {len(inputs)} examples")
    answers: list[GoldenAnswer] = []
    for index, (example, output) in enumerate(zip(given, outputs, strict=True), 1):
        status = example.status or 200
        kind: Kind
        try:
            if isinstance(output, bytes | bytearray):
                kind, body = "bytes", bytes(output)
            elif isinstance(output, str):
                kind, body = "text", output.encode()
            else:
                kind, body = "json", answer_json(output, nonfinite="allow")
        except (TypeError, ValueError, RecursionError) as exc:
            raise InvalidArchive(f"predict's answer to example {index} is neither text, bytes nor JSON: {exc}") from exc
        answer = GoldenAnswer.of(status=status, kind=kind, body=body, content_type=None)
        found = output_difference(example.output, answer, tolerance)
        if found is not None:
            raise InvalidArchive(f"example {index}: predict does not give the example's output: {found}")
        answers.append(answer)
    return tuple(answers)
