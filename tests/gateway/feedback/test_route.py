"""`POST /feedback` through a gateway."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.fakes import FakePod, running
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_observations.joining import JOINED, UNMATCHED
from marway_observations.reading import Observed
from support.kept_feedback import feedback_files, kept_feedback
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
ID = "01KBARM2T5A1B2C3D4E5F60718"
ONE = {"prediction_id": ID, "truth": "alarm"}


@pytest.fixture(autouse=True)
def made(registry: Registry) -> None:
    """The registry is there: feedback is kept beside its models, and refused where there is none."""
    registry.create()


@pytest.fixture
def store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "registry")


async def test_feedback_is_kept_when_its_sender_is_told(registry: Registry, store: DirectoryStore) -> None:
    """One piece or ten thousand, plain or as gzip: 202 says how many, and they are in the store then."""
    many = [{"request_id": f"r-{number}", "score": number} for number in range(10_000)]
    async with running(registry=registry, feedback_interval_s=0) as gateway:
        one = await gateway.client.post("/feedback", json=ONE, headers={"x-request-id": "mine"})
        assert (one.status_code, one.json()) == (202, {"accepted": 1})
        assert one.headers["x-request-id"] == "mine"
        assert [(row["prediction_id"], row["truth"]) for row in kept_feedback(store)] == [(ID, '"alarm"')]
        headers = {"content-type": "application/json; charset=utf-8", "content-encoding": "gzip"}
        all_ = await gateway.client.post("/feedback", content=gzip.compress(json.dumps(many).encode()), headers=headers)
        assert (all_.status_code, all_.json()) == (202, {"accepted": 10_000})
        assert sorted(row["score"] for row in feedback_files(store)[1]) == list(range(10_000))
        none = await gateway.client.post("/feedback", json=[])
        assert (none.status_code, none.json()) == (202, {"accepted": 0})
        assert await gateway.metric("marway_gateway_feedback_entries_total") == 10_001
        assert await gateway.metric('marway_gateway_feedback_calls_total{outcome="ok"}') == 3
    assert [row["client"] for row in feedback_files(store)[0]] == [None]


REFUSED: tuple[tuple[dict[str, Any], int, str], ...] = (
    ({"json": [ONE, ONE | {"score": "high"}]}, 400, "nothing was kept: entry 1 (the first is 0), score: "),
    ({"content": b"", "headers": {"content-type": "application/json"}}, 400, "no body: send one piece of feedback"),
    ({"content": b"{}"}, 415, "a body without a Content-Type is not taken here: send JSON"),
    ({"content": b"{}", "headers": {"content-type": "text/plain"}}, 415, "'text/plain' is not taken here"),
    ({"json": [ONE] * 100}, 413, "this gateway accepts at most 4000 bytes"),
    ({"content": "in pieces", "headers": {"content-type": "application/json"}}, 413, "accepts at most 4000 bytes"),
)


async def pieces() -> AsyncIterator[bytes]:
    """Yield a body whose size is not said before."""
    for _ in range(2):
        yield b" " * 3000


async def test_what_is_wrong_is_refused_whole(registry: Registry, store: DirectoryStore) -> None:
    """A call with one entry that cannot be one, or that is no JSON or too large, keeps nothing."""
    async with running(registry=registry, max_body_bytes=4000) as gateway:
        got = await gateway.client.get("/feedback")
        assert (got.status_code, got.headers["allow"]) == (405, "POST")
        for sent, status, words in REFUSED:
            body = {"content": pieces()} if sent.get("content") == "in pieces" else {}
            answer = await gateway.client.post("/feedback", **{**sent, **body})
            assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
            assert words in answer.json()["detail"]
        calls = await gateway.metric('marway_gateway_feedback_calls_total{outcome="client_error"}')
        assert calls == len(REFUSED)
    assert kept_feedback(store) == []


async def test_feedback_wants_the_tokens_that_predictions_want(
    registry: Registry, store: DirectoryStore, tmp_path: Path
) -> None:
    """Who may not predict may not say how predictions were; the name of a token is kept, an address is not."""
    tokens = tmp_path / "tokens"
    tokens.write_text("crm: let-me-in-please-1234567890\n")
    tokens.chmod(0o600)
    async with running(registry=registry, predict_tokens_file=tokens) as gateway:
        refused = await gateway.client.post("/feedback", json=ONE)
        assert refused.status_code == 401
        headers = {"authorization": "Bearer let-me-in-please-1234567890"}
        assert (await gateway.client.post("/feedback", json=ONE, headers=headers)).status_code == 202
    assert [row["client"] for row in kept_feedback(store)] == ["crm"]


async def test_a_store_that_takes_nothing_harms_no_prediction(
    registry: Registry, store: DirectoryStore, tmp_path: Path, make_pod: MakePod
) -> None:
    """503 and when to try again; predictions go on, and the gateway stays ready. Later all is kept as before."""
    publish(registry, tmp_path)
    pod = await make_pod()
    directory = tmp_path / "registry" / "feedback"
    directory.write_text("a file where the directory should be")
    async with running(pod, registry=registry, feedback_interval_s=0) as gateway:
        refused = await gateway.client.post("/feedback", json=ONE)
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert "was not kept, send it again" in refused.json()["detail"]
        assert int(refused.headers["retry-after"]) >= 1
        assert (await gateway.predict()).status_code == 200
        assert (await gateway.client.get("/readyz")).status_code == 200
        assert await gateway.metric('marway_gateway_feedback_calls_total{outcome="unavailable"}') == 1
        directory.unlink()
        assert (await gateway.client.post("/feedback", json=ONE)).status_code == 202
    assert len(kept_feedback(store)) == 1


async def test_feedback_finds_its_predictions(
    registry: Registry, store: DirectoryStore, tmp_path: Path, make_pod: MakePod
) -> None:
    """By the id of the answer, of the request or of the group: what is said joins what was kept of the predictions."""
    publish(registry, tmp_path)
    async with running(await make_pod(), registry=registry, feedback_interval_s=0) as gateway:
        one = await gateway.predict(x_request_id="r-1", x_request_group_id="g-1")
        other = await gateway.predict(x_request_id="r-2", x_request_group_id="g-1")
        said = [
            {"prediction_id": one.headers["x-prediction-id"], "truth": "alarm"},
            {"request_id": "r-2", "truth": ["timer"]},
            {"group_id": "g-1", "score": 0.5},
            {"request_id": "r-9", "correct": False},
        ]
        assert (await gateway.client.post("/feedback", json=said)).status_code == 202
    with Observed(store) as found:
        rows = found.query(f"SELECT prediction_id, truth, correct, score FROM ({JOINED}) ORDER BY prediction_id")
        unmatched = found.query(UNMATCHED)
    ids = [answer.headers["x-prediction-id"] for answer in (one, other)]
    assert sorted(rows) == sorted([(ids[0], '"alarm"', None, 0.5), (ids[1], '["timer"]', None, 0.5)])
    assert unmatched == [(1,)]


async def test_a_call_waits_for_the_store_no_longer_than_for_a_prediction(registry: Registry) -> None:
    """A store that does not come to an end has its callers told after the usual deadline."""
    async with running(registry=registry, feedback_interval_s=60, default_timeout_s=0.1) as gateway:
        assert (await gateway.client.post("/feedback", json=ONE)).status_code == 202
        late = await gateway.client.post("/feedback", json=ONE)
        assert (late.status_code, late.json()["code"]) == (503, "unavailable")
        assert "within 0.1 s, and may yet" in late.json()["detail"]


async def test_feedback_is_refused_where_the_registry_has_gone(registry: Registry, tmp_path: Path) -> None:
    """Feedback is not written to the mount point of a volume that is away, where it would be lost: 503."""
    async with running(registry=registry, feedback_interval_s=0) as gateway:
        (tmp_path / "registry").rename(tmp_path / "away")
        (tmp_path / "registry").mkdir()
        answer = await gateway.client.post(
            "/feedback", json={"prediction_id": "01M8PKFZSNMXRF54M1N26NE7WZ", "truth": 1}
        )
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
    assert list((tmp_path / "registry").iterdir()) == []
