"""Sends each request to the old server and to Marway, one right after the other, and compares what they answer."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from marway.answers.difference import difference
from marway.answers.golden import DEFAULT_TOLERANCE, GoldenAnswer, Tolerance
from marway.answers.pairs import compare_pair
from marway.refs import DEFAULT_LABEL
from marway_archiver.adopt.comparing.calling import NoAnswer, Server, compared_answer, has_id
from marway_archiver.adopt.comparing.routes import Route
from marway_archiver.adopt.comparing.sent import OldAnswer, OldRequest
from marway_archiver.adopt.comparing.tally import ComparedModel, Tally
from marway_archiver.adopt.found import FoundModel

__all__ = ["Comparison", "Model", "Rounds", "compare", "models_asked"]

Progress = Callable[[int, int], None]
"""Is told how many requests are done, of how many."""
_ROUNDS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Rounds:
    """How often the same requests are sent for their times.

    Attributes:
        pairs: Measured pairs that are wanted of each model.
        seconds: After so many seconds a model's rounds end, whatever there is.
        once: Send each request once alone: then the first answers count for times as well, and nothing is known of
            whether the old server answers twice the same.
    """

    pairs: int = 60
    seconds: float = 20.0
    once: bool = False

    def of(self, requests: int) -> int:
        """Return how many rounds there are after the first one."""
        return 0 if self.once else max(1, min(_ROUNDS_MAX, math.ceil(self.pairs / max(1, requests))))


@dataclass(frozen=True, slots=True)
class Model:
    """One version, as the old server knows it and as Marway does, with the requests for it.

    Attributes:
        found: The version.
        requests: Those for it.
        labels: That point at it in Marway.
    """

    found: FoundModel
    requests: tuple[OldRequest, ...]
    labels: tuple[str, ...] = ()

    def at_marway(self, route: Route) -> Route:
        """Return the route by which Marway is asked the same; see `Route.at_marway`."""
        unnamed = None if DEFAULT_LABEL in self.labels else next(iter(self.labels), self.found.version)
        return route.at_marway(self.found.name, self.found.version, unnamed)


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of all requests.

    Attributes:
        models: One for each version that was asked.
        not_found: How many requests were for a model that the source does not have, by its name.
        live: Whether the old server answered now; else what the file recorded was compared with.
        tolerance: How far numbers of equal answers lie apart.
    """

    models: tuple[ComparedModel, ...]
    not_found: Mapping[str, int]
    live: bool
    tolerance: Tolerance

    @property
    def ok(self) -> bool:
        """Whether every request was answered the same."""
        return all(each.ok for each in self.models)


def models_asked(
    found: Sequence[FoundModel], requests: Sequence[OldRequest]
) -> tuple[tuple[Model, ...], dict[str, int]]:
    """Return the requests by the version that they ask, and how many ask for none of these, by what they name."""
    by: dict[int, list[OldRequest]] = {}
    unknown: dict[str, int] = {}
    for request in requests:
        place = next((at for at, each in enumerate(found) if _asks(request, each, found)), None)
        if place is None:
            route = request.route
            named = route.model if route.version is None else f"{route.model}/{route.version}"
            unknown[named] = unknown.get(named, 0) + 1
        else:
            by.setdefault(place, []).append(request)
    return tuple(Model(found[at], tuple(by[at]), found[at].labels) for at in sorted(by)), unknown


def _asks(request: OldRequest, model: FoundModel, all_models: Sequence[FoundModel]) -> bool:
    route, endpoint = request.route, model.endpoint
    if model.problem is not None or route.model != endpoint.model:
        return False
    host = None if request.host is None else request.host.partition(":")[0]
    if host != endpoint.host and host in {each.endpoint.host for each in all_models} - {None}:
        return False  # services of several namespaces may have the same name; then the host tells them apart
    if route.version is None:
        return endpoint.version is None
    return route.version in (endpoint.version, model.version)


def compare(
    models: Sequence[Model],
    unknown: Mapping[str, int],
    new: Server,
    *,
    old: Server | None,
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    rounds: Rounds | None = None,
    stopped: threading.Event | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Ask both servers, or only the new one where the file recorded what the old one answered, and compare. Blocks.

    Args:
        models: What is asked, and with what.
        unknown: As `models_asked` returns it.
        new: Marway's public port.
        old: The old server; None where it is gone, and the answers that the file recorded count.
        tolerance: How far numbers may lie apart and still be the same answer.
        rounds: How often times are measured.
        stopped: Ends it, with what there is.
        progress: Told of requests.
    """
    rounds, stopped = rounds or Rounds(), stopped or threading.Event()
    total, done = sum(len(each.requests) for each in models), 0
    found: list[ComparedModel] = []
    for model in models:
        tally = Tally(model.found.name, model.found.version)
        run = _Run(model, tally, old, new, tolerance, rounds)
        for request in model.requests:
            if stopped.is_set():
                break
            run.compare(request)
            done += 1
            if progress is not None:
                progress(done, total)
        run.measure(stopped)
        found.append(tally.done())
    return Comparison(tuple(found), dict(unknown), old is not None, tolerance)


@dataclass(slots=True)
class _Run:
    """A model's requests under way."""

    model: Model
    tally: Tally
    old: Server | None
    new: Server
    tolerance: Tolerance
    rounds: Rounds

    def compare(self, request: OldRequest) -> None:
        """Send one request to both, and to the old server a second time, and count how they answer."""
        protocol = request.route.protocol
        try:
            before = self._old(request)
        except NoAnswer as exc:
            self.tally.add_none(request.where, protocol, f"the old server: {exc}")
            return
        try:
            after = self.new.ask(request, self._new_path(request))
        except NoAnswer as exc:
            self.tally.add_none(request.where, protocol, f"Marway: {exc}")
            return
        if self.rounds.once and self.old is not None:
            self._time(before, after)
        given = protocol == "v2" and has_id(request.body)
        one, other = (compared_answer(each, protocol, has_id=given) for each in (before, after))
        one, other = _kinds_alike(one, other)
        unsteady = False
        if self.old is not None and not self.rounds.once:
            try:
                again = compared_answer(self._old(request), protocol, has_id=given)
                unsteady = (
                    difference(compared_answer(before, protocol, has_id=given), again, self.tolerance) is not None
                )
            except NoAnswer:
                unsteady = True
        self.tally.add(request.where, protocol, other, compare_pair(one, other, self.tolerance), unsteady=unsteady)

    def measure(self, stopped: threading.Event) -> None:
        """Send the same requests again and again, and take the times of pairs that both answered."""
        if self.old is None:
            return
        until = time.monotonic() + self.rounds.seconds
        for turn in range(self.rounds.of(len(self.model.requests))):
            for number, request in enumerate(self.model.requests):
                if stopped.is_set() or time.monotonic() > until:
                    return
                try:
                    if (turn + number) % 2:  # in turns, so that neither always has the warmer caches
                        before, after = self._old(request), self._new(request)
                    else:
                        after, before = self._new(request), self._old(request)
                except NoAnswer:
                    continue
                self._time(before, after)

    def _time(self, before: OldAnswer, after: OldAnswer) -> None:
        if before.seconds is not None and after.seconds is not None and max(before.status, after.status) < 400:
            self.tally.time(before.seconds, after.seconds)

    def _old(self, request: OldRequest) -> OldAnswer:
        if self.old is not None:
            return self.old.ask(request, request.route.path, host=request.host or self.model.found.endpoint.host)
        if request.answer is None:
            raise NoAnswer("the file has no answer of it to this request")
        return request.answer

    def _new(self, request: OldRequest) -> OldAnswer:
        return self.new.ask(request, self._new_path(request))

    def _new_path(self, request: OldRequest) -> str:
        return self.model.at_marway(request.route).path


def _kinds_alike(one: GoldenAnswer, other: GoldenAnswer) -> tuple[GoldenAnswer, GoldenAnswer]:
    """Return two answers as the same kind where only what is said of them differs, as of JSON that came unnamed.

    A content type that just one of them names is no difference that a client's parser sees: it is left out.
    """
    if (one.content_type is None) == (other.content_type is None) or "error" in (one.kind, other.kind):
        return one, other
    named = one.content_type or other.content_type
    return tuple(_read_as(each, named) for each in (one, other))  # type: ignore[return-value]


def _read_as(answer: GoldenAnswer, content_type: str | None) -> GoldenAnswer:
    if answer.kind != "text":
        return answer.model_copy(update={"content_type": content_type})
    body = str(answer.value).encode()
    return GoldenAnswer.of(status=answer.status, kind="text", body=body, content_type=content_type)
