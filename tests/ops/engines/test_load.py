"""A load on two targets in turns: its figures, and what it finds wrong."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable

import pytest

from marway.answers.golden import ExampleInput, Tolerance
from marway_ops.engines import load
from marway_ops.engines.load import Figures, LoadPlan, Target, measure, ratios_of
from marway_ops.engines.proof import EngineAnswer
from marway_ops.up.home import ReservedPort
from support.stub_pod import StubPod

TEXT = "text/plain"
EXAMPLES = (ExampleInput(b"one", TEXT), ExampleInput(b"two", TEXT))
ANSWERS = (EngineAnswer(200, TEXT, b"ONE"), EngineAnswer(200, TEXT, b"TWO"))
PLAN = LoadPlan(seconds=0.2, clients=(1, 3))


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "_WARM_S", 0.05)


def target(engine: str, pod: StubPod) -> Target:
    return Target(engine, f"{pod.url}/predict/intent/1.0", EXAMPLES, ANSWERS)


def measured(*targets: Target, stopped: threading.Event | None = None) -> list[Figures]:
    return measure(targets, PLAN, tolerance=Tolerance(), timeout_s=5, stopped=stopped or threading.Event())


def test_figures_of_two_targets(stub_pods: Callable[[], StubPod]) -> None:
    """Each target has its rate and its percentiles by number of clients; the slower one is seen to be."""
    fast, slow = stub_pods(), stub_pods()
    fast.on("/predict/intent/1.0", lambda body: (200, TEXT, body.upper()))

    def slowly(body: bytes) -> tuple[int, str, bytes]:
        time.sleep(0.02)  # what it measures
        return 200, TEXT, body.upper()

    slow.on("/predict/intent/1.0", slowly)
    figures = measured(target("torchserve", slow), target("native", fast))
    assert [(each.clients, each.engine) for each in figures] == [
        (1, "torchserve"), (1, "native"), (3, "torchserve"), (3, "native"),
    ]  # fmt: skip
    for each in figures:
        assert (each.wrong, each.problems) == (0, [])
        assert len(each.rates) == 2
        assert 0 < each.percentile(50) <= each.percentile(99) <= each.percentile(100) == max(each.seconds)
    assert figures[0].percentile(50) >= 0.02
    ratios = ratios_of(figures, "torchserve", "native")
    assert [each.clients for each in ratios] == [1, 3]
    assert all(1 < each.least <= each.median <= each.most for each in ratios)
    assert {body for _, body, _ in fast.came} == {b"one", b"two"}


def test_wrong_answers_are_found(stub_pods: Callable[[], StubPod]) -> None:
    """An answer under load that is not the one from before is counted, and told with its example."""
    right, wrong = stub_pods(), stub_pods()
    right.on("/predict/intent/1.0", lambda body: (200, TEXT, body.upper()))
    turn = itertools.count()
    wrong.on("/predict/intent/1.0", lambda body: (200, TEXT, body if next(turn) % 5 == 0 else body.upper()))
    good, bad, *_ = measured(target("torchserve", right), target("native", wrong))
    assert good.wrong == 0
    assert bad.wrong >= 1
    assert bad.problems[0].startswith("example ")
    assert "was expected" in bad.problems[0]


def test_a_target_that_is_gone_has_figures_of_nothing() -> None:
    """Nobody listens: all is wrong, nothing is measured, and it ends all the same."""
    silent = ReservedPort()  # nobody listens on it
    nobody = StubPod(f"http://127.0.0.1:{silent.number}")
    figures = measured(target("torchserve", nobody), target("native", nobody))
    silent.close()
    assert all(each.wrong >= 1 and each.rate == 0 and math.isnan(each.percentile(50)) for each in figures)
    assert "example 1: no answer: " in figures[0].problems[0]
    assert ratios_of(figures, "torchserve", "native") == []


def test_it_ends_when_it_is_told_to(stub_pods: Callable[[], StubPod]) -> None:
    """Once the event is set, no further turn begins."""
    pod = stub_pods()
    stopped = threading.Event()

    def stopping(body: bytes) -> tuple[int, str, bytes]:
        stopped.set()
        return 200, TEXT, body.upper()

    pod.on("/predict/intent/1.0", stopping)
    assert measured(target("torchserve", pod), target("native", pod), stopped=stopped) == []
    assert len(pod.came) <= max(PLAN.clients)


def test_a_plan_has_turns_enough_to_be_told_apart() -> None:
    """Turns take about half a second, and there are two at least."""
    assert [LoadPlan(seconds).turns for seconds in (0.1, 1.0, 4.0, 10.0)] == [2, 2, 8, 20]
