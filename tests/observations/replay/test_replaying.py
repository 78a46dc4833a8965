"""`marway replay`: kept inputs through a gateway to two versions, what is compared, judged, printed and kept of it."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.fakes import FakePod, running
from marway.errors import Overloaded
from marway.records import utc_now
from marway.registry import Registry
from marway.wire.headers import OUTCOME, Outcome
from marway.wire.problems import problem_of
from marway_observations.replay import Replaying, Wanted, asking, choose
from support.in_process import Marway
from support.observations import observation, write_observations
from support.registry import publish as publish_into

MakePod = Callable[..., Awaitable[FakePod]]
INPUTS = 40


@pytest.fixture
def kept(registry: Registry, tmp_path: Path) -> Registry:
    """intent 1.0, which PROD is at, with 40 inputs of its callers, half of them from DE; and 1.1."""
    publish_into(registry, tmp_path, "intent", "1.0", serving={"observe": "bodies"})
    publish_into(registry, tmp_path, "intent", "1.1")
    registry.release("intent", "1.0", by="ci")
    at = utc_now() - timedelta(minutes=5)
    rows = [
        observation(
            {"label": "a"},
            input={"n": n, "country": "DE" if n % 2 else "FR"},
            version="1.0",
            at=at + timedelta(seconds=n),
        )
        for n in range(INPUTS)
    ]
    write_observations(registry.store, "intent", rows)
    return registry


def answered(value: Any) -> web.Response:
    headers = {"content-type": "application/json", OUTCOME: Outcome.ANSWERED}
    return web.Response(body=json.dumps(value).encode(), headers=headers)


def refused(error: Any, outcome: str) -> web.Response:
    problem, headers = problem_of(error)
    return web.Response(
        body=problem.body(),
        status=problem.status,
        headers={**headers, OUTCOME: outcome, "content-type": "application/problem+json"},
    )


async def worse(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """1.1 says b in place of a for four inputs, its scores are others, and it fails one input."""
    n = json.loads(await request.read())["n"]
    new = request.path.endswith("/1.1")
    if new and n == 7:
        return answered_with(422)
    label = "b" if new and n in (1, 3, 5, 9) else "a"
    return answered({"label": label, "score": 0.6 if new else 0.9})


def answered_with(status: int) -> web.Response:
    return web.Response(body=b"no", status=status, headers={OUTCOME: Outcome.ANSWERED, "content-type": "text/plain"})


async def run(marway: Marway, gateway: Any, *options: str) -> Any:
    url = gateway.addresses.gateway
    return await asyncio.to_thread(marway, "replay", "intent", "--candidate", "1.1", "--gateway", url, *options)


async def test_replay(kept: Registry, marway: Marway, make_pod: MakePod) -> None:
    """Agreement, differences by field and by segment, failures and times are told, judged, and kept without answers."""
    pod = await make_pod("a", behave=worse)
    async with running(pod, registry=kept) as gateway:
        said = await run(marway, gateway, "--segment", "input.country", "--json")
        assert said.code == 1, said.err
        told = json.loads(said.out)
        assert {name: told["counts"][name] for name in ("compared", "equal", "agree", "failed", "shape")} == {
            "compared": 40,
            "equal": 0,
            "agree": 35,
            "failed": 1,
            "shape": 0,
        }
        assert told["fields"] == {"score": 39, "label": 4}
        by_country = {each["value"]: each["counts"]["agree"] for each in told["segments"]}
        assert by_country == {"FR": 20, "DE": 15}
        kinds = [each["kind"] for each in told["examples"]]
        assert kinds == ["failed", *["decision"] * 4, *["value"] * 5]
        assert '"a" is now "b"' in told["examples"][1]["difference"]
        assert [breach.split(":")[0] for breach in told["breaches"]] == ["errors", "disagreement"]
        assert (told["base"], told["candidate"], told["label"], told["passed"]) == ("1.0", "1.1", "PROD", False)
        assert all(side["p99_s"] > 0 for side in told["sides"])
        sent = [seen for seen in pod.requests if seen.path.startswith("/predict/")]
        assert len(sent) == 2 * INPUTS
        assert {seen.headers["x-request-id"].partition("-")[0] for seen in sent} == {"replay"}
        (proof,) = kept.proofs(kept.record("intent", "1.1").archive.sha256)
        assert proof.kind == "replay"
        assert proof.replay is not None
        assert (proof.replay.base, proof.replay.counts.agree, proof.replay.passed) == ("1.0", 35, False)
        assert {each.difference for each in proof.replay.examples} == {None}
        said = await run(marway, gateway, "--guards", "disagreement=0.2,finite", "--last", "20", "--no-store")
        assert said.code == 0, said.err
        for words in ("20 of 20 inputs of callers of PROD", "within all limits: disagreement 0.2, finite 0.005"):
            assert words in said.out, said.out
        shown = marway("show", "intent/1.1").out
        assert "35 of 40 inputs decided as by 1.0, 1 failed; errors: 1.1 fails inputs that 1.0 answers" in shown


async def test_gives_way_and_goes_on(kept: Registry, make_pod: MakePod, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pods have no room it waits and goes on; where nothing is answered any more it is broken off and says so."""
    monkeypatch.setattr(asking, "_WAIT_MAX_S", 0.15)  # of a second, which a gateway says
    script = iter([True, False, *[True] * 7, *[True] * 5, *[False] * 1000])

    async def busy(pod: FakePod, request: web.Request) -> web.StreamResponse:
        if next(script):
            return answered({"label": "a"})
        return refused(Overloaded("full", retry_after_s=1), Outcome.REFUSED)

    pod = await make_pod("a", behave=busy)
    now = utc_now()
    wanted = Wanted("intent", now - timedelta(hours=1), now, last=4, label="PROD")
    async with running(pod, registry=kept) as gateway:
        replaying = Replaying(
            kept,
            kept.record("intent", "1.0"),
            kept.record("intent", "1.1"),
            gateway.addresses.gateway,
            give_up_s=20,
            rate=20,
        )

        def replayed() -> Any:
            with choose(kept.store, wanted) as inputs:
                return replaying.run(inputs)

        done = await asyncio.to_thread(replayed)
        assert (done.counts.equal, done.broken_off, done.passed) == (4, None, True)
        replaying.give_up_s = 0.1
        done = await asyncio.to_thread(replayed)
        assert "nothing was answered for 0.1 s" in done.broken_off
        assert 0 < done.counts.compared < 3
        assert not done.passed


@contextmanager
def gateway_that(answers: Callable[[int], bool]) -> Iterator[str]:
    """Serve as a gateway does, but for requests for which ``answers`` says no: their connection is closed."""
    numbers = itertools.count()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            if not answers(next(numbers)):
                self.close_connection = True
                return
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(b'{"label": "a"}')

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="gateway")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_gateway_restarts(kept: Registry, marway: Marway) -> None:
    """Where connections are lost on the way, it goes on once there is a gateway again."""
    with gateway_that(lambda number: number not in (5, 6, 7)) as url:
        said = marway("replay", "intent", "--candidate", "1.1", "--gateway", url, "--json")
    assert said.code == 0, said.err
    assert json.loads(said.out)["counts"]["equal"] == INPUTS


def test_interrupted(kept: Registry, marway: Marway) -> None:
    """Ctrl-C ends it: what was compared is told and that not all was, and it is no proof."""

    def answers(number: int) -> bool:
        if number == 10:
            os.kill(os.getpid(), signal.SIGINT)
        return True

    with gateway_that(answers) as url:
        said = marway("replay", "intent", "--candidate", "1.1", "--gateway", url)
    assert said.code == 1
    found = re.search(r"BROKEN OFF after (\d+) of 40 inputs: interrupted", said.out)
    assert found is not None, said.out
    assert 4 < int(found[1]) < INPUTS
    assert "nothing of it is kept as a proof" in said.err
    assert list(kept.proofs(kept.record("intent", "1.1").archive.sha256)) == []


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--candidate", "1.0"], "would be compared with itself, where PROD is: give --base"),
        (["--candidate", "9.9"], "has no version '9.9'|no version"),
        (["--candidate", "1.1", "--guards", "speed"], "'speed' is no guard of a replay"),
        (["--candidate", "1.1", "--guards", "errors=7"], "give a part of the inputs from 0 to 1"),
        (["--candidate", "1.1", "--segment", "a["], "is no JMESPath"),
        (["--candidate", "1.1", "--since", "2020-01-01", "--label", "NONE"], "label"),
        (["--candidate", "1.1", "--gateway", "http://127.0.0.1:1", "--timeout", "0.1"], "no gateway answers"),
    ],
)
def test_refused(kept: Registry, marway: Marway, options: list[str], why: str) -> None:
    """What cannot be done is refused in one line, before anything is asked."""
    said = marway("replay", "intent", *options)
    assert said.code == 1
    assert any(each in said.err for each in why.split("|")), said.err
    assert len(said.err.strip().splitlines()) == 1
