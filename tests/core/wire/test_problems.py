"""The one table from error to HTTP status, and the documents that carry errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from marway import errors
from marway.errors import MarwayError, ModelError
from marway.wire.problems import STATUS, parse_problem, problem_of


def every(kind: type[MarwayError]) -> Iterator[type[MarwayError]]:
    yield kind
    for child in kind.__subclasses__():
        if child.__module__ == errors.__name__:
            yield from every(child)


def test_every_error_has_a_status() -> None:
    """The table holds every error of the tree, and nothing else."""
    assert set(STATUS) == set(every(MarwayError))


def test_every_error_is_drawn_in_the_tree() -> None:
    """The drawing in the module's docstring names every error, and `__all__` exports it."""
    for kind in every(MarwayError):
        assert kind.__name__ in (errors.__doc__ or "")
        assert kind.__name__ in errors.__all__


def test_codes_are_unique() -> None:
    """A code stands for one kind of error, so that a gateway can tell what a sidecar said."""
    assert len({kind.code for kind in STATUS}) == len(STATUS)


@pytest.mark.parametrize("kind", sorted(STATUS, key=lambda kind: kind.__name__))
def test_an_error_survives_the_wire(kind: type[MarwayError]) -> None:
    """An error sent as a problem document is read as the same error."""
    sent = kind("what happened", model="m", version="1")
    problem, extra = problem_of(sent, request_id="r")
    read = parse_problem(problem.body(), status=problem.status)
    assert (type(read), read.message, read.model, read.version) == (kind, "what happened", "m", "1")
    assert ("retry-after" in extra) == (problem.status in (429, 503))


def test_a_kind_of_a_rooms_own_counts_as_what_it_is_a_kind_of() -> None:
    """An error that only one room knows is sent as the nearest error of the tree."""

    class WorkerDied(errors.Unavailable):
        pass

    problem, extra = problem_of(WorkerDied("died"))
    assert (problem.status, problem.code, extra["retry-after"]) == (503, "unavailable", "1")


def test_retry_after_is_whole_seconds() -> None:
    """A wait is rounded up, and never zero."""
    for given, sent in ((0.1, "1"), (2.2, "3"), (None, "1")):
        _, extra = problem_of(errors.NoPodAvailable("none", retry_after_s=given))
        assert extra["retry-after"] == sent


def test_a_model_error_keeps_the_status_of_the_handler() -> None:
    """The status that a handler chose goes through the wire and back."""
    problem, _ = problem_of(ModelError("refused", status=422))
    read = parse_problem(problem.body(), status=problem.status)
    assert isinstance(read, ModelError)
    assert read.status == 422


def test_what_is_no_problem_document_is_still_an_error() -> None:
    """An answer of something that is no sidecar becomes an error that shows its beginning."""
    read = parse_problem(b"<html>Bad Gateway</html>", status=502)
    assert type(read) is MarwayError
    assert "Bad Gateway" in read.message
