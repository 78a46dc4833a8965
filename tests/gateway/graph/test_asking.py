"""What the gateway itself asks of graphs: copies of requests, and answers for proofs and comparisons."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, cast

import pytest

from marway.answers.golden import ExampleInput, GoldenAnswer
from marway.deadline import Deadline
from marway.errors import (
    DeadlineExceeded,
    InvalidRequest,
    LoadFailed,
    MarwayError,
    ModelError,
    NoPodAvailable,
    NoRoomToSpare,
)
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.headers import PRIORITY, Outcome
from marway_gateway.graph.releases.asker import Asker
from marway_gateway.graph.releases.comparing import Inputs, compared
from marway_gateway.graph.releases.copies import GraphCopies
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.traffic.shadow.sending import Came, Dropped
from marway_gateway.transport.reply import Reply
from marway_http.channel import header_block
from support.registry import record_of


class Fake:
    """Answers predict calls with what a function makes of them, and remembers them."""

    def __init__(self, made: Callable[[PredictCall], bytes | Exception]) -> None:
        self.made = made
        self.calls: list[PredictCall] = []

    def scope(self, call: PredictCall) -> Any:
        return contextlib.nullcontext()

    async def predict(self, call: PredictCall) -> Answer:
        self.calls.append(call)
        answer = self.made(call)
        if isinstance(answer, Exception):
            raise answer
        headers = header_block([(b"content-type", b"application/json")])
        return Answer(Reply(200, Outcome.ANSWERED, None, headers, answer, len(answer)), call)


@pytest.fixture
def version() -> Resolved:
    return Resolved(record_of(b"1"), ServingSettings(), None)


async def test_what_becomes_of_copies(version: Resolved) -> None:
    """Only what the graph was given counts; all else is dropped, with a word for why. Every node's request gives way,
    is of nobody's side, and nothing of it is kept as a prediction of a caller.
    """
    for made, reason in (
        (NoRoomToSpare("full"), "no_room"),
        (NoPodAvailable("none"), "not_ready"),
        (DeadlineExceeded("late"), "late"),
        (InvalidRequest("no JSON"), "refused"),
        (LoadFailed("no such layer"), "lost"),
    ):
        fake = Fake(lambda call, made=made: made)
        sent = await GraphCopies(lambda fake=fake: cast("Any", fake)).send(version, {}, b"x", within_s=5)
        assert sent == Dropped(reason)
    fake = Fake(lambda call: ModelError("KeyError", status=422))
    came = await GraphCopies(lambda: cast("Any", fake)).send(version, {"x-request-id": "r"}, b"x", within_s=5)
    assert isinstance(came, Came)
    assert (came.status, came.reply, came.pod) == (422, None, None)
    (call,) = fake.calls
    assert (call.headers[PRIORITY], call.info.role, call.info.request_id) == ("shadow", "shadow", "r")
    assert (call.divides, call.fresh, call.info.prediction_id) == (False, True, None)


@pytest.mark.parametrize(
    ("made", "status", "says"),
    [
        (b'{"a": 1}', 200, None),
        (ModelError("node b: KeyError", status=422), 422, "node b: KeyError"),
        (InvalidRequest("node b: nothing"), 400, "node b: nothing"),
        (DeadlineExceeded("node b had not answered"), 504, "no answer within 120 s: node b had not answered"),
    ],
)
async def test_a_failure_is_an_answer(
    version: Resolved, made: bytes | MarwayError, status: int, says: str | None
) -> None:
    """What a graph fails at, or takes too long for, is an answer that is compared as others are."""
    fake = Fake(lambda call: made)
    asker = Asker(lambda: cast("Any", fake))
    asked = await asker.ask(version, ExampleInput(b"x", "text/plain"), ids="r", deadline=Deadline.after(600))
    expected = GoldenAnswer(status=status, kind="error", value=says)
    if says is None:
        expected = GoldenAnswer(status=200, kind="json", content_type="application/json", value={"a": 1})
    assert asked.answer == expected
    assert fake.calls[0].headers["content-type"] == "text/plain"


async def test_what_says_nothing_of_a_version_is_no_answer(version: Resolved) -> None:
    """That nobody could answer, or not before the proof's own deadline, is raised."""
    example = ExampleInput(b"x")
    for made in (NoPodAvailable("none"), LoadFailed("no such layer")):
        asker = Asker(lambda made=made: cast("Any", Fake(lambda call: made)))
        with pytest.raises(type(made)):
            await asker.ask(version, example, ids="r", deadline=Deadline.after(600))
    with pytest.raises(DeadlineExceeded):
        await Asker(lambda: cast("Any", Fake(lambda call: b"1"))).ask(
            version, example, ids="r", deadline=Deadline.after(0)
        )


async def test_a_base_that_cannot_be_asked(version: Resolved) -> None:
    """Without answers of its own, or published ones that stand for them, nothing is compared."""
    new = Resolved(record_of(b"2", version="2.0"), ServingSettings(), None)

    def made(call: PredictCall) -> bytes | Exception:
        return b"1" if call.selector == "2.0" else NoPodAvailable("none")

    asker = Asker(lambda: cast("Any", Fake(made)))
    with pytest.raises(MarwayError, match=r"1\.0 cannot be asked now, and has no published golden answers"):
        await compared(asker, new, version, Inputs((ExampleInput(b"x"),), "1.0"), deadline=Deadline.after(60))
    nothing = await compared(asker, new, version, Inputs((), "2.0"), deadline=Deadline.after(60))
    assert nothing.not_compared == "neither 1.0 nor 2.0 has golden inputs"
