"""A copy on its way: asked once, of a pod that has the version ready; what each end of it says of the version."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from marway.errors import DeadlineExceeded, MarwayError, ModelError, NoRoomToSpare, Overloaded, RuntimeDown
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.headers import PRIORITY, Outcome
from marway.wire.problems import problem_of
from marway_gateway.placement import PodSet
from marway_gateway.traffic.shadow.sending import Came, CopySender, Dropped
from marway_gateway.transport import Upstream
from marway_gateway.transport.base import PodLost
from marway_gateway.transport.reply import Reply
from marway_http.channel import header_block
from support.registry import publish

RUN = b"0,2000,1,1"


class Pods:
    """One pod, which has the version ready or has not."""

    name, url = "a", "http://a"

    def __init__(self, *, ready: bool = True) -> None:
        self.ready = ready
        self.begun = 0

    def choose(self, spec: Any) -> Any:
        assert spec.ready_only
        return self if self.ready else None

    def begin(self, key: object) -> None:
        self.begun += 1


class Asked:
    """Answers as it is told; notes what it was asked."""

    def __init__(self, made: Reply | Exception) -> None:
        self.made = made
        self.headers: list[dict[str, str]] = []

    async def predict(self, pod: Any, name: str, version: str, **asked: Any) -> Reply:
        pod.begin((name, version))
        self.headers.append(dict(asked["headers"]))
        if isinstance(self.made, Exception):
            raise self.made
        return self.made


def refusal(error: MarwayError, outcome: str, *, run: bytes | None = None) -> Reply:
    problem, _ = problem_of(error)
    return Reply(problem.status, outcome, None, header_block([]), problem.body(), None, run)


class Stream:
    """A body in pieces, which may break off."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = pieces
        self.read = 0
        self.closed = False

    async def parts(self) -> AsyncIterator[tuple[bytes, bool]]:
        for each in self.pieces:
            if isinstance(each, Exception):
                raise each
            self.read += 1
            yield each, True

    def close(self) -> None:
        self.closed = True


def streamed(stream: Stream) -> Reply:
    return Reply(200, Outcome.ANSWERED, None, header_block([]), None, None, RUN, cast("Any", stream))


@pytest.fixture
def version(tmp_path: Path) -> Resolved:
    record = publish(Registry(DirectoryStore(tmp_path / "registry")), tmp_path)
    return Resolved(record, ServingSettings(), "PROD")


async def send(version: Resolved, made: Reply | Exception, *, ready: bool = True) -> tuple[Came | Dropped, Asked, Pods]:
    asked, pods = Asked(made), Pods(ready=ready)
    sender = CopySender(cast("PodSet", pods), cast("Upstream", asked), {}, cast("Any", None))
    return await sender.send(version, {"x-request-id": "r"}, b"text", within_s=5), asked, pods


async def test_what_each_end_says(version: Resolved) -> None:
    """Only what the model was given counts; all else is dropped, with a word for why. Nothing is asked twice."""
    answered = Reply(200, Outcome.ANSWERED, None, header_block([]), b"{}", None, RUN)
    came, asked, pods = await send(version, answered)
    assert isinstance(came, Came)
    assert (came.status, came.body, came.run, came.pod) == (200, b"{}", RUN, "a")
    assert asked.headers == [{"x-request-id": "r", PRIORITY: "shadow"}]
    assert pods.begun == 0  # no load of the pod, by which callers would be sent elsewhere
    late = DeadlineExceeded("too late")
    for made, status in (
        (refusal(ModelError("KeyError", status=422), Outcome.MODEL_ERROR), 422),
        (refusal(RuntimeDown("died"), Outcome.WORKER_DIED), 500),
        (refusal(late, Outcome.FAILED, run=RUN), 504),
    ):
        came, asked, _ = await send(version, made)
        assert isinstance(came, Came)
        assert (came.status, came.reply, len(asked.headers)) == (status, None, 1)
    for dropped, reason in (
        (refusal(late, Outcome.FAILED), "lost"),
        (refusal(NoRoomToSpare("16 wait"), Outcome.NOT_ACCEPTED), "no_room"),
        (refusal(Overloaded("64 wait"), Outcome.NOT_ACCEPTED), "not_ready"),
        (refusal(RuntimeDown("gone"), Outcome.RUNTIME_DOWN, run=RUN), "lost"),
        (refusal(MarwayError("too large"), Outcome.REFUSED), "refused"),
        (PodLost("closed the connection", reason="connection_lost"), "lost"),
    ):
        came, asked, _ = await send(version, dropped)
        assert came == Dropped(reason)
        assert len(asked.headers) == 1
    assert (await send(version, answered, ready=False))[0] == Dropped("not_ready")


async def test_streams_are_read_and_forgotten(version: Resolved) -> None:
    """An answer in pieces is read to its end, an endless one given up, one that breaks off tells nothing."""
    whole = Stream(b"a", b"b")
    came, *_ = await send(version, streamed(whole))
    assert isinstance(came, Came)
    assert (came.body, whole.read, whole.closed) == (None, 2, True)
    endless = Stream(*[b"x" * 1024 * 1024] * 20)
    came, *_ = await send(version, streamed(endless))
    assert isinstance(came, Came)
    assert (endless.read, endless.closed) == (17, True)
    broken = Stream(b"a", PodLost("closed the connection", reason="connection_lost"))
    assert (await send(version, streamed(broken)))[0] == Dropped("lost")
    assert broken.closed
