"""Compares a version's answers with those of the version whose place it is to take, one golden input after another."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from marway.answers.comparison_text import field_change
from marway.answers.difference import difference, shown_value, value_difference
from marway.answers.fields import Fields, field_changes, nonfinite_at
from marway.answers.golden import DEFAULT_TOLERANCE, GoldenAnswer, GoldenDocument, Tolerance, decode_golden
from marway.errors import InvalidRecord, NotFound, clip
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.registry import Registry
from marway.wire.comparison import Comparison, FieldChange

__all__ = ["Comparing", "compare_stored", "fails", "golden_of"]

_LINES_MAX = 10
_LINE_MAX = 300
_FIELDS_MAX = 50
_SHOWN_FIELDS = 5


class Comparing:
    """Takes in answers to the same inputs, and says in the end how they compare.

    Args:
        version: The version that is looked at.
        base: The one it is compared with, None for none: then only its own answers are looked at.
        tolerance: How far numbers of equal answers may lie apart.
    """

    def __init__(self, version: str, base: str | None, *, tolerance: Tolerance = DEFAULT_TOLERANCE) -> None:
        self._version, self._base, self._tolerance = version, base, tolerance
        self._before, self._after = Fields(), Fields()
        self._compared = self._equal = self._errors = self._base_errors = 0
        self._nonfinite = self._base_nonfinite = self._both_answered = 0
        self._differences: list[str] = []
        self._failures: list[str] = []
        self._nonfinite_at: list[str] = []
        self._times: list[float] = []
        self._base_times: list[float] = []

    @property
    def compared(self) -> int:
        """How many inputs were taken in."""
        return self._compared

    def add(self, number: int, before: GoldenAnswer | None, after: GoldenAnswer, *, values_only: bool = False) -> None:
        """Take in the answers to one input.

        Args:
            number: The input's, from 1, for the lines about it.
            before: The base's answer; None where there is no base.
            after: The version's own; one of kind `error` for an input that it failed to answer.
            values_only: One of them is a publisher's callable's, whose kind and content type say nothing.
        """
        self._compared += 1
        self._look(number, before, after)
        if before is None:
            return
        if values_only and before.status == after.status and after.kind != "error":
            differs = value_difference(before.value, after.value, self._tolerance)
        else:
            differs = difference(before, after, self._tolerance)
        if differs is None:
            self._equal += 1
        else:
            self._differences.append(_line(number, differs))
        if fails(before) or fails(after):
            return
        self._both_answered += 1
        if not values_only or before.kind == after.kind == "json":
            self._before.add(before)
            self._after.add(after)

    def time(self, seconds: float) -> None:
        """Take in how long the version took to answer an input."""
        self._times.append(seconds)

    def base_time(self, seconds: float) -> None:
        """Take in how long the base took to answer an input."""
        self._base_times.append(seconds)

    def done(self, *, inputs: int, inputs_of: str, method: str = "pod", notes: Sequence[str] = ()) -> Comparison:
        """Return how they compare.

        Args:
            inputs: How many golden inputs there are.
            inputs_of: Whose they are.
            method: As `Comparison` has it.
            notes: What was not done, or otherwise.
        """
        fields = field_changes(self._before, self._after)
        notes = list(notes)
        if self._compared < inputs:
            notes.append(f"{self._compared} of {inputs} inputs were compared")
        if self._before.cut or self._after.cut:
            notes.append("the answers have more fields than are looked at: some of them were not compared by type")
        return Comparison.model_validate(
            {
                "version": self._version,
                "base": self._base,
                "method": method,
                "inputs_of": inputs_of,
                "inputs": inputs,
                "compared": self._compared,
                "equal": self._equal,
                "differences": tuple(self._differences[:_LINES_MAX]),
                "both_answered": self._both_answered,
                "fields": tuple(fields[:_FIELDS_MAX]),
                "errors": self._errors,
                "base_errors": self._base_errors,
                "failures": tuple(self._failures[:_LINES_MAX]),
                "nonfinite": self._nonfinite,
                "base_nonfinite": self._base_nonfinite,
                "nonfinite_at": tuple(self._nonfinite_at[:_LINES_MAX]),
                "p50_s": statistics.median(self._times) if self._times else None,
                "base_p50_s": statistics.median(self._base_times) if self._base_times else None,
                "notes": tuple(notes),
                "refused": tuple(self._refused(fields)),
            }
        )

    def _look(self, number: int, before: GoldenAnswer | None, after: GoldenAnswer) -> None:
        """Count what fails and what is not finite."""
        failed_before = before is not None and fails(before)
        self._base_errors += failed_before
        if fails(after):
            self._errors += 1
            if before is not None and not failed_before:
                self._failures.append(_line(number, f"status {after.status}: {_said(after)}"))
        place_before = nonfinite_at(before) if before is not None else None
        place = nonfinite_at(after)
        self._base_nonfinite += place_before is not None
        if place is not None:
            self._nonfinite += 1
            if place_before is None:
                self._nonfinite_at.append(_line(number, place))

    def _refused(self, fields: Sequence[FieldChange]) -> list[str]:
        found: list[str] = []
        if self._failures:
            found.append(
                f"it fails {len(self._failures)} of {self._compared} inputs that {self._base} answers, "
                f"such as {self._failures[0]}"
            )
        if self._nonfinite_at:
            found.append(
                f"{len(self._nonfinite_at)} of {self._compared} answers hold NaN or an infinity"
                + (f" where those of {self._base} do not" if self._base is not None else "")
                + f", such as {self._nonfinite_at[0]}"
            )
        if fields:
            more = len(fields) - _SHOWN_FIELDS
            said = "; ".join(field_change(each) for each in fields[:_SHOWN_FIELDS])
            found.append(f"its answers have other fields or types: {said}" + (f"; and {more} more" if more > 0 else ""))
        return found


def fails(answer: GoldenAnswer) -> bool:
    """Return whether an answer tells of a failure: the handler raised, or set a status of 400 or more."""
    return answer.kind == "error" or answer.status >= 400


def golden_of(registry: Registry, record: VersionRecord) -> GoldenDocument | None:
    """Return a version's published golden answers, None where it has none. Blocks.

    Raises:
        InvalidRecord: They are gone from the registry, are damaged, or belong to another archive.
        RegistryUnavailable: They cannot be read.
    """
    if record.golden_sha256 is None:
        return None
    where = f"golden/{record.golden_sha256}.json of {record.name} {record.version}"
    try:
        data = registry.golden(record.golden_sha256)
    except (ObjectMissing, NotFound) as exc:
        raise InvalidRecord(f"{where} is not in the registry: publish the version again") from exc
    document = decode_golden(data, source=where)
    if document.archive_sha256 != record.archive.sha256:
        raise InvalidRecord(f"{where} belongs to another archive: publish the version again")
    return document


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
    callables = "callable" in (before.source, document.source)
    both = Comparing(record.version, named, tolerance=before.tolerance)
    for number, each in enumerate(before.examples, 1):
        answer = answers.get((each.input_sha256, each.content_type))
        if answer is not None:
            both.add(number, each.answer, answer, values_only=callables)
    if both.compared == 0:
        return nothing(f"{named} and {record.version} have golden answers to no input in common")
    return both.done(inputs=len(before.examples), inputs_of=base.version, method="stored")


def _line(number: int, said: str) -> str:
    return clip(f"example {number}: {said}", _LINE_MAX)


def _said(answer: GoldenAnswer) -> str:
    value = answer.value
    return clip(" ".join(value.split()), _LINE_MAX) if isinstance(value, str) else shown_value(value)
