"""The counts of one process, fed answer by answer."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Final, NamedTuple

from marway_gateway.traffic.evidence.counts import FORMAT, TESTS

__all__ = ["Side", "Tally"]

_FIRST: Final = 200
"""Answers of the base that say what is slow: its 99th percentile is the second largest of them or so."""


class Side(NamedTuple):
    """What became of a request with one version.

    Attributes:
        failed: No answer, or an error, whoever seems to be at fault: chance gives either version as many bad callers.
            Not that there was no capacity.
        finite: No NaN and no infinity in the answer; None where it holds no numbers or was not looked at.
        model_s: How long the model took, in seconds, as the pod says; None where it does not.
    """

    failed: bool
    finite: bool | None
    model_s: float | None


class Tally:
    """What this process has counted of one rollout.

    What is slow is decided by the base's first 200 answers here, and stays: slower than 1.3 times their median and half
    a millisecond, and slower than 1.5 times their 99th percentile and five milliseconds. Small times jitter by as much
    as the constants. Nothing slow is counted before.

    Args:
        guards: What is watched: see `marway.traffic.GUARDS`.
    """

    __slots__ = ("_first", "_live", "_pairs", "_slow", "_tests", "changed")

    def __init__(self, guards: Collection[str]) -> None:
        self._tests = frozenset(test for guard in guards for test in TESTS.get(guard, ()))
        self._first: list[float] = []
        self._slow: tuple[float, float] | None = None
        self._live: dict[tuple[int, float], dict[str, list[int]]] = {}
        self._pairs: dict[int, dict[str, list[int]]] = {}
        self.changed = 0
        """How often something was counted: whether there is anything new to write."""

    def live(self, step: int, share: float, side: Side, *, candidate: bool) -> None:
        """Count an answer to a caller who was divided by chance.

        Only such: not where the candidate had no pod ready when the caller's side was chosen, whichever side that was.

        Args:
            step: Of the rollout.
            share: The candidate's share of the callers, from 0 to 1, when the side was chosen.
            side: What became of the request.
            candidate: Whether the candidate answered.
        """
        if not candidate:
            self._learn(side)
        rows = self._live.setdefault((step, share), {})
        for test, event in self._events(side):
            row = rows.get(test)
            if row is None:
                row = rows[test] = [0, 0, 0, 0]
            row[2 if candidate else 0] += 1
            if event:
                row[3 if candidate else 1] += 1
        self.changed += 1

    def pair(
        self, step: int, base: Side, candidate: Side, *, shape_differs: bool | None, disagrees: bool | None
    ) -> None:
        """Count a request that the base answered a caller, and the candidate was sent a copy of.

        Args:
            step: Of the rollout.
            base: What the caller got.
            candidate: What the copy got.
            shape_differs: Whether the answers have other fields, types, kinds of status or content; None where they
                cannot be compared.
            disagrees: Whether they decide otherwise; None where they cannot be compared.
        """
        if not self._live:  # shadow copies alone
            self._learn(base)
        rows = self._pairs.setdefault(step, {})
        for (test, worse), (_, before) in zip(self._events(candidate), self._events(base), strict=True):
            _count(rows, test, worse and not before, before and not worse)
        for test, differs in (("shape", shape_differs), ("disagreement", disagrees)):
            if differs is not None and test in self._tests:
                _count(rows, test, differs, False)
        self.changed += 1

    def document(self) -> dict[str, object]:
        """Return all that was counted, as JSON: `merged` adds up those of several processes."""
        return {
            "format": FORMAT,
            "live": [
                {"step": step, "share": share, "tests": {test: _named(_LIVE, row) for test, row in rows.items()}}
                for (step, share), rows in sorted(self._live.items())
            ],
            "pairs": [
                {"step": step, "tests": {test: _named(_PAIRS, row) for test, row in rows.items()}}
                for step, rows in sorted(self._pairs.items())
            ],
        }

    def _events(self, side: Side) -> list[tuple[str, bool]]:
        tests, slow = self._tests, self._slow
        events = []
        if "errors" in tests:
            events.append(("errors", side.failed))
        if "finite" in tests:
            events.append(("finite", side.finite is False))
        if slow is not None and "p50" in tests:
            seconds = side.model_s or 0.0
            events += [("p50", seconds > slow[0]), ("p99", seconds > slow[1])]
        return events

    def _learn(self, base: Side) -> None:
        if self._slow is None and base.model_s is not None and not base.failed:
            self._first.append(base.model_s)
            if len(self._first) == _FIRST:
                first = sorted(self._first)
                median, late = first[_FIRST // 2], first[math.ceil(_FIRST * 0.99) - 1]
                self._slow = (median * 1.3 + 0.0005, late * 1.5 + 0.005)
                self._first = []


_LIVE: Final = ("base", "base_events", "candidate", "candidate_events")
_PAIRS: Final = ("pairs", "worse", "better")


def _named(names: tuple[str, ...], row: list[int]) -> dict[str, int]:
    return dict(zip(names, row, strict=True))


def _count(rows: dict[str, list[int]], test: str, worse: bool, better: bool) -> None:
    row = rows.get(test)
    if row is None:
        row = rows[test] = [0, 0, 0]
    row[0] += 1
    row[1] += worse
    row[2] += better
