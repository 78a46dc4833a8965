"""Counts how two servers answered the same requests, model by model."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from marway.answers.golden import GoldenAnswer
from marway.answers.pairs import Pair
from marway.errors import clip
from marway_archiver.adopt.comparing.timing import Timing, timing_of

__all__ = ["ComparedModel", "Example", "Tally"]

_EXAMPLES_MAX: Final = 10
_FIELDS_MAX: Final = 50
_LINE_MAX: Final = 300
_WHOLE: Final = "(the whole answer)"


@dataclass(frozen=True, slots=True)
class Example:
    """A request that both answered otherwise: where it is from, and how they differ in one line."""

    where: str
    difference: str


@dataclass(frozen=True, slots=True)
class ComparedModel:
    """How two servers answered the requests for one version of a model.

    Attributes:
        model, version: As Marway calls it.
        protocols: By which it was asked.
        requests: How many different ones were sent.
        equal: Of these both answered the same, within the tolerance; an error of the same status counts.
        differing: Were answered otherwise.
        decides_otherwise: Of these, another decision: another label, class, order of scores, or an error on one side.
        failed, old_failed, both_failed: An error of Marway alone, of the old server alone, of both.
        not_compared: By why: no answer of one of them.
        unsteady: The old server itself answered them otherwise the second time.
        fields: In which fields answers differ, by how many requests.
        examples: The first differences.
        timing: How long both took; None where only one of them was measured.
    """

    model: str
    version: str
    protocols: tuple[str, ...]
    requests: int
    equal: int
    differing: int
    decides_otherwise: int
    failed: int
    old_failed: int
    both_failed: int
    not_compared: dict[str, int]
    unsteady: int
    fields: dict[str, int]
    examples: tuple[Example, ...]
    timing: Timing | None

    @property
    def ok(self) -> bool:
        """Whether each request was answered the same."""
        return self.equal == self.requests


@dataclass(slots=True)
class Tally:
    """Takes in what came of the requests for one version of a model."""

    model: str
    version: str
    _protocols: dict[str, None] = field(default_factory=dict)
    _counts: Counter[str] = field(default_factory=Counter)
    _not_compared: Counter[str] = field(default_factory=Counter)
    _fields: Counter[str] = field(default_factory=Counter)
    _examples: list[Example] = field(default_factory=list)
    _times: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))

    def add(self, where: str, protocol: str, after: GoldenAnswer, pair: Pair, *, unsteady: bool) -> None:
        """Take in a request that both servers answered."""
        self._protocols[protocol] = None
        counts = {
            "requests": True,
            "equal": pair.difference is None,
            "decides_otherwise": pair.decides_otherwise,
            "failed": pair.failed and not pair.base_failed,
            "old_failed": pair.base_failed and not pair.failed,
            "both_failed": pair.failed and pair.base_failed,
            "unsteady": unsteady,
        }
        self._counts.update(name for name, counted in counts.items() if counted)
        if pair.difference is None:
            return
        self._fields.update(name or _WHOLE for name in pair.fields)
        if len(self._examples) < _EXAMPLES_MAX:
            description = pair.difference
            if pair.failed and not pair.base_failed:
                description = f"Marway answers with status {after.status}: {after.value}"
            elif unsteady:
                description = f"{description} (the old server itself answered otherwise the second time)"
            self._examples.append(Example(where, clip(description, _LINE_MAX)))

    def add_none(self, where: str, protocol: str, why: str) -> None:
        """Take in a request that one of them did not answer."""
        self._protocols[protocol] = None
        self._counts["requests"] += 1
        self._not_compared[clip(why, 200)] += 1
        if len(self._examples) < _EXAMPLES_MAX:
            self._examples.append(Example(where, clip(why, _LINE_MAX)))

    def time(self, old_s: float, new_s: float) -> None:
        """Take in how long both took for a request that was sent to one right after the other."""
        self._times[0].append(old_s)
        self._times[1].append(new_s)

    def done(self) -> ComparedModel:
        """Return what came of it."""
        counts = self._counts
        return ComparedModel(
            self.model,
            self.version,
            tuple(self._protocols),
            requests=counts["requests"],
            equal=counts["equal"],
            differing=counts["requests"] - counts["equal"] - self._not_compared.total(),
            decides_otherwise=counts["decides_otherwise"],
            failed=counts["failed"],
            old_failed=counts["old_failed"],
            both_failed=counts["both_failed"],
            not_compared=dict(self._not_compared),
            unsteady=counts["unsteady"],
            fields=dict(self._fields.most_common(_FIELDS_MAX)),
            examples=tuple(self._examples),
            timing=timing_of(*self._times),
        )
