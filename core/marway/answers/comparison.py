"""Compares a version's answers with those of the version whose place it is to take, one golden input after another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from marway.answers.difference import difference, golden_of, shown_value, value_difference
from marway.answers.fields import Fields, field_changes, nonfinite_at
from marway.answers.golden import DEFAULT_TOLERANCE, GoldenAnswer, Tolerance
from marway.errors import clip
from marway.records import VersionRecord
from marway.registry import Registry
from marway.wire.comparison import Comparison, FieldChange, Method, field_change

__all__ = ["Comparing", "compare_stored", "fails", "without_version"]

_LINES_MAX = 10
_LINE_MAX = 300
_FIELDS_MAX = 50
_SHOWN_FIELDS = 5


@dataclass(slots=True)
class _Side:
    """What one version's answers come to."""

    fields: Fields = field(default_factory=Fields)
    errors: int = 0
    nonfinite: int = 0
    times: list[float] = field(default_factory=list)

    def look(self, answer: GoldenAnswer) -> tuple[bool, str | None]:
        """Count an answer; return whether it is a failure, and where it is not finite."""
        failed, place = fails(answer), nonfinite_at(answer)
        self.errors += failed
        self.nonfinite += place is not None
        return failed, place

    @property
    def p50_s(self) -> float | None:
        return statistics.median(self.times) if self.times else None


class Comparing:
    """Takes in a version's answers and its base's to the same inputs, and says in the end how they compare.

    Without a base only the version's own answers are looked at. `compared` is how many inputs were taken in.
    """

    def __init__(self, version: str, base: str | None, *, tolerance: Tolerance = DEFAULT_TOLERANCE) -> None:
        self._version, self._base, self._tolerance = version, base, tolerance
        self._before, self._after = _Side(), _Side()
        self.compared = self._equal = self._both_answered = 0
        self._differences: list[str] = []
        self._failures: list[str] = []
        self._nonfinite_at: list[str] = []

    def add(self, number: int, before: GoldenAnswer | None, after: GoldenAnswer, *, values_only: bool = False) -> None:
        """Take in the base's answer to input ``number`` (from 1) and the version's own, of kind `error` if it failed.

        With ``values_only`` one of them was not a handler's, so its kind and content type say nothing.
        """
        before, after = before and without_version(before), without_version(after)
        self.compared += 1
        failed, place = self._after.look(after)
        failed_before, place_before = self._before.look(before) if before is not None else (False, None)
        if place is not None and place_before is None:
            self._nonfinite_at.append(_line(number, place))
        if before is None:
            return
        if failed and not failed_before:
            self._failures.append(_line(number, f"status {after.status}: {_shown_value(after)}"))
        if values_only and before.status == after.status and after.kind != "error":
            differs = value_difference(before.value, after.value, self._tolerance)
        else:
            differs = difference(before, after, self._tolerance)
        if differs is None:
            self._equal += 1
        else:
            self._differences.append(_line(number, differs))
        if failed or failed_before:
            return
        self._both_answered += 1
        if not values_only or before.kind == after.kind == "json":
            self._before.fields.add(before)
            self._after.fields.add(after)

    def time(self, seconds: float) -> None:
        """Take in how long the version took to answer an input."""
        self._after.times.append(seconds)

    def base_time(self, seconds: float) -> None:
        """Take in how long the base took to answer an input."""
        self._before.times.append(seconds)

    def done(self, *, inputs: int, inputs_of: str, method: Method = "pod", notes: Sequence[str] = ()) -> Comparison:
        """Return how they compare; the arguments are as `Comparison` has them."""
        before, after = self._before, self._after
        fields = field_changes(before.fields, after.fields)
        notes = list(notes)
        if self.compared < inputs:
            notes.append(f"{self.compared} of {inputs} inputs were compared")
        if before.fields.cut or after.fields.cut:
            notes.append("the answers have more fields than are looked at: some of them were not compared by type")
        return Comparison(
            version=self._version,
            base=self._base,
            method=method,
            inputs_of=inputs_of,
            inputs=inputs,
            compared=self.compared,
            equal=self._equal,
            differences=tuple(self._differences[:_LINES_MAX]),
            both_answered=self._both_answered,
            fields=tuple(fields[:_FIELDS_MAX]),
            errors=after.errors,
            base_errors=before.errors,
            failures=tuple(self._failures[:_LINES_MAX]),
            nonfinite=after.nonfinite,
            base_nonfinite=before.nonfinite,
            nonfinite_at=tuple(self._nonfinite_at[:_LINES_MAX]),
            p50_s=after.p50_s,
            base_p50_s=before.p50_s,
            notes=tuple(notes),
            refused=tuple(self._refused(fields)),
        )

    def _refused(self, fields: Sequence[FieldChange]) -> list[str]:
        found: list[str] = []
        if self._failures:
            found.append(
                f"it fails {len(self._failures)} of {self.compared} inputs that {self._base} answers, "
                f"such as {self._failures[0]}"
            )
        if self._nonfinite_at:
            found.append(
                f"{len(self._nonfinite_at)} of {self.compared} answers hold NaN or an infinity"
                + (f" where those of {self._base} do not" if self._base is not None else "")
                + f", such as {self._nonfinite_at[0]}"
            )
        if fields:
            more = len(fields) - _SHOWN_FIELDS
            shown = "; ".join(field_change(each) for each in fields[:_SHOWN_FIELDS])
            found.append(
                f"its answers have other fields or types: {shown}" + (f"; and {more} more" if more > 0 else "")
            )
        return found


def fails(answer: GoldenAnswer) -> bool:
    """Return whether an answer tells of a failure: the handler raised, or set a status of 400 or more."""
    return answer.kind == "error" or answer.status >= 400


def compare_stored(registry: Registry, record: VersionRecord, base: VersionRecord | None) -> Comparison:
    """Compare the published golden answers of two versions to the inputs that both have; nothing is run. Blocks.

    Without a base only the version's own answers are looked at. A version without golden answers is refused the place
    of one that has some: nothing shows that it can answer what that one does.

    Raises:
        InvalidRecord: Golden answers are gone from the registry, or damaged.
        RegistryUnavailable: They cannot be read.
    """
    document = golden_of(registry, record)
    before = golden_of(registry, base) if base is not None else None
    named = base.version if base is not None else None

    def nothing(why: str, *refused: str) -> Comparison:
        return Comparison(version=record.version, base=named, method="stored", not_compared=why, refused=refused)

    if document is None or not document.examples:
        if before is None or not before.examples:
            which = f"neither {named} nor {record.version} has" if named is not None else f"{record.version} has no"
            return nothing(f"{which} golden answers")
        why = f"{record.version} has no golden answers, and {named} has {len(before.examples)}"
        return nothing(why, f"{why}: nothing shows that it answers those inputs, and without a gateway no pod is asked")
    if base is None:
        alone = Comparing(record.version, None, tolerance=document.tolerance)
        for number, each in enumerate(document.examples, 1):
            if not fails(each.answer):  # one that it was published to refuse
                alone.add(number, None, each.answer)
        return alone.done(inputs=alone.compared, inputs_of=record.version, method="stored")
    if before is None or not before.examples:
        return nothing(f"{named} has no golden answers")
    answers = {(each.input_sha256, each.content_type): each.answer for each in document.examples}
    values_only = before.values_only or document.values_only
    both = Comparing(record.version, named, tolerance=before.tolerance)
    for number, each in enumerate(before.examples, 1):
        answer = answers.get((each.input_sha256, each.content_type))
        if answer is not None:
            both.add(number, each.answer, answer, values_only=values_only)
    if both.compared == 0:
        return nothing(f"{named} and {record.version} have golden answers to no input in common")
    return both.done(inputs=len(before.examples), inputs_of=base.version, method="stored")


def without_version(answer: GoldenAnswer) -> GoldenAnswer:
    """Return a response of the Open Inference Protocol without the version that it names: that differs always."""
    value = answer.value
    if not (isinstance(value, dict) and {"outputs", "model_version"} <= value.keys()):
        return answer
    return answer.model_copy(update={"value": {name: each for name, each in value.items() if name != "model_version"}})


def _line(number: int, text: str) -> str:
    return clip(f"example {number}: {text}", _LINE_MAX)


def _shown_value(answer: GoldenAnswer) -> str:
    value = answer.value
    return clip(" ".join(value.split()), _LINE_MAX) if isinstance(value, str) else shown_value(value)
