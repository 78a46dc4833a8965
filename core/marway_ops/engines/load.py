"""A short load on several targets in turns, with every answer looked at.

Threads with `http.client`, for what the client takes counts in every figure: httpx takes several times as long for a
request as a small model for its answer.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from typing import Final
from urllib.parse import urlsplit

from marway.answers.golden import ExampleInput, Tolerance
from marway_ops.engines.proof import EngineAnswer, answer_difference, headers_of

__all__ = ["Figures", "LoadPlan", "Ratio", "Target", "measure", "ratios_of"]

_TURN_S: Final = 0.5
_WARM_S: Final = 1.0
_LEAST_TURNS: Final = 2
_KEPT: Final = 50
"""Most answers of one client and turn that are kept to be compared, of those that are not the same byte by byte."""


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """How long each target is asked with each number of clients, in seconds, and those numbers."""

    seconds: float = 4.0
    clients: Sequence[int] = (1, 8)

    @property
    def turns(self) -> int:
        return max(_LEAST_TURNS, round(self.seconds / _TURN_S))


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked.

    Attributes:
        engine: Its name.
        url: Where predictions of the version are made.
        examples: What is sent, one after the other.
        answers: What it answered to each before, which it has to answer now.
    """

    engine: str
    url: str
    examples: Sequence[ExampleInput]
    answers: Sequence[EngineAnswer]


@dataclass(slots=True)
class Figures:
    """What one target gave with one number of clients.

    Attributes:
        rates: Requests/s of each turn.
        seconds: How long each answer took, in rising order.
        problems: What was answered otherwise than before, or not at all; the first ones.
        wrong: How many of those there were.
    """

    engine: str
    clients: int
    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    wrong: int = 0

    @property
    def rate(self) -> float:
        """Requests/s: the median of the turns."""
        return statistics.median(self.rates)

    def percentile(self, percent: float) -> float:
        """Return how long at most so many of a hundred answers took, in seconds (nearest rank)."""
        if not self.seconds:
            return math.nan
        return self.seconds[max(0, math.ceil(len(self.seconds) * percent / 100) - 1)]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Requests/s of the second target against the first: median, least and greatest of the turns."""

    clients: int
    median: float
    least: float
    most: float


def measure(
    targets: Sequence[Target], plan: LoadPlan, *, tolerance: Tolerance, timeout_s: float, stopped: threading.Event
) -> list[Figures]:
    """Ask the targets in turns and return their figures, by number of clients. Blocks.

    Which is first changes from turn to turn. Before, each is asked unmeasured for a second with the most clients, so
    that it has its workers. It ends early, with what there is, once ``stopped`` is set.

    Args:
        targets: In the order of what is returned.
        plan: For how long, with how many clients.
        tolerance: How far numbers of equal answers may lie apart.
        timeout_s: How long one answer is waited for.
        stopped: Ends it.
    """
    found: dict[tuple[int, str], Figures] = {}
    for target in targets:
        _turn(target, max(plan.clients), _WARM_S, tolerance, timeout_s, stopped, Figures(target.engine, 0))
    for count in plan.clients:
        for turn in range(plan.turns):
            for target in targets if turn % 2 == 0 else reversed(targets):
                if stopped.is_set():
                    return [*found.values()]
                figures = found.setdefault((count, target.engine), Figures(target.engine, count))
                _turn(target, count, plan.seconds / plan.turns, tolerance, timeout_s, stopped, figures)
    for figures in found.values():
        figures.seconds.sort()
    return [found[count, target.engine] for count in plan.clients for target in targets]


def ratios_of(figures: Sequence[Figures], first: str, second: str) -> list[Ratio]:
    """Return for each number of clients what the second engine does against the first, turn by turn."""
    by: Mapping[tuple[int, str], Figures] = {(each.clients, each.engine): each for each in figures}
    found = []
    for count in dict.fromkeys(each.clients for each in figures):
        pairs = zip(by[count, first].rates, by[count, second].rates, strict=True)
        each = [theirs / ours for ours, theirs in pairs if ours > 0]
        if each:
            found.append(Ratio(count, statistics.median(each), min(each), max(each)))
    return found


def _turn(
    target: Target,
    clients: int,
    seconds: float,
    tolerance: Tolerance,
    timeout_s: float,
    stopped: threading.Event,
    figures: Figures,
) -> None:
    """Ask a target for so many seconds, and add what came to its figures."""
    go = threading.Event()
    asking = [_Client(target, timeout_s, first, go, stopped) for first in range(clients)]
    threads = [threading.Thread(target=each.run, args=(seconds,), name="load", daemon=True) for each in asking]
    for thread in threads:
        thread.start()
    for each in asking:
        each.connected.wait()
    started = time.perf_counter()
    go.set()
    for thread in threads:
        thread.join()
    took = time.perf_counter() - started
    figures.rates.append(sum(len(each.seconds) for each in asking) / took)
    for each in asking:
        figures.seconds += each.seconds
        _note(figures, each, target, tolerance)


def _note(figures: Figures, client: _Client, target: Target, tolerance: Tolerance) -> None:
    figures.wrong += len(client.failures)
    figures.problems += client.failures
    for index, answer in client.others:
        found = answer_difference(target.answers[index], answer, tolerance)
        if found is not None:
            figures.wrong += 1
            figures.problems.append(f"example {index + 1}: {found}")
    del figures.problems[_KEPT:]


class _Client:
    """One connection that sends one request after the other; it begins with example ``first``."""

    def __init__(
        self, target: Target, timeout_s: float, first: int, go: threading.Event, stopped: threading.Event
    ) -> None:
        parts = urlsplit(target.url)
        self._connection = HTTPConnection(parts.netloc, timeout=timeout_s)
        self._path = parts.path
        self._target, self._first, self._go, self._stopped = target, first, go, stopped
        self._sent = [headers_of(each, timeout_s) for each in target.examples]
        self.connected = threading.Event()
        self.seconds: list[float] = []
        self.failures: list[str] = []
        self.others: list[tuple[int, EngineAnswer]] = []

    def run(self, seconds: float) -> None:
        """Send requests until the time is up; the last one is waited for, and there is one at least."""
        try:
            self._connection.connect()
        except OSError:
            pass  # said by the first request
        finally:
            self.connected.set()
        self._go.wait()
        until, number = time.perf_counter() + seconds, self._first
        while not self._stopped.is_set():
            self._ask(number % len(self._target.examples))
            number += 1
            if time.perf_counter() >= until:
                break
        self._connection.close()

    def _ask(self, index: int) -> None:
        example, expected = self._target.examples[index], self._target.answers[index]
        started = time.perf_counter()
        try:
            self._connection.request("POST", self._path, example.data, self._sent[index])
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, HTTPException) as exc:
            self._connection.close()
            if not self._stopped.is_set():
                self.failures.append(f"example {index + 1}: no answer: {str(exc) or type(exc).__name__}")
                self._stopped.wait(_TURN_S / 10)  # who does not listen is not asked as fast as can be
            return
        took = time.perf_counter() - started
        got = EngineAnswer(answer.status, answer.getheader("content-type"), body)
        self.seconds.append(took)
        if not got.same_as(expected) and len(self.others) < _KEPT:
            self.others.append((index, got))
