"""What a traced call's handler takes, step by step."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marway.wire.envelope import Row
from marway.wire.headers import TIMED
from marway.wire.measurements import measurements_of
from marway.worker.steps import timed_steps

PLAIN, TRACED = [Row("r", [])], [Row("r", []), Row("s", [], {TIMED: "1"})]


class Handler:
    """As TorchServe's base handler."""

    def handle(self, data: Any, context: Any) -> Any:
        return self.postprocess(self.inference(self.preprocess(data)))

    def preprocess(self, data: Any) -> Any:
        return data

    def inference(self, data: Any) -> Any:
        if data == "raise":
            raise ValueError(data)
        return data

    def postprocess(self, data: Any) -> Any:
        return [data]


class Slotted(Handler):
    """Nothing can be set here."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(name)


def test_steps_are_timed_and_the_handler_is_left_as_it_was() -> None:
    """Each step is told in the order in which they ended, within the handler's own time, and nothing is left behind."""
    handler = Handler()
    with timed_steps(handler.handle, TRACED) as steps:
        assert handler.handle("x", None) == ["x"]
    assert [step.name for step in steps] == ["preprocess", "inference", "postprocess", "handler"]
    assert steps[-1].value >= sum(step.value for step in steps[:-1])
    assert vars(handler) == {}


def test_a_step_that_raises_is_timed_too() -> None:
    """What was done before the exception is told, and the exception passes."""
    handler = Handler()
    with pytest.raises(ValueError, match="raise"), timed_steps(handler.handle, TRACED) as steps:
        handler.handle("raise", None)
    assert [step.name for step in steps] == ["preprocess", "inference", "handler"]
    assert vars(handler) == {}


def test_what_has_no_steps() -> None:
    """A function, and a handler that lets nobody set anything, are timed as a whole; unasked nothing is."""
    for entry_point in (lambda data, context: data, Slotted().handle):
        with timed_steps(entry_point, TRACED) as steps:
            entry_point("x", None)
        assert [step.name for step in steps] == ["handler"]
    with timed_steps(Handler().handle, PLAIN) as steps:
        pass
    assert steps == []


def test_of_steps_without_end_the_first_are_kept() -> None:
    """A handler that calls a step again and again has a traced call that a sidecar takes."""
    handler = Handler()
    with timed_steps(handler.handle, TRACED) as steps:
        for _ in range(1000):
            handler.inference([1])
    assert len(measurements_of(json.loads(json.dumps([each.fields() for each in steps])))) == len(steps)
    assert steps[-1].name == "handler"
