"""Answers that are given again: what is kept, what is not, and equal requests in flight."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace

import grpc
import pytest
from aiohttp import web

from gateway.fakes import Behaviour, FakePod, Running, answer, broken_model, running
from gateway.surfaces.test_streaming import sending
from marway.errors import MarwayError, ModelError, Unavailable
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.headers import OUTCOME, Outcome
from marway_gateway.observe.metrics import Metrics
from marway_gateway.predict.cache import AnswerCache, CacheUse, forbids_cache, request_key
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.transport.reply import Reply, parse_response_headers
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
CACHED = ServingSettings(cache=True)
SHA = "0" * 64


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path, serving=CACHED)


async def uses(gateway: Running) -> dict[str, float]:
    names = ("hit", "miss", "bypass")
    found = [await gateway.metric(f'marway_gateway_cache_requests_total{{outcome="{name}"}}') for name in names]
    return {name: count for name, count in zip(names, found, strict=True) if count}


async def numbered(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Say which request of the pod's this is."""
    headers = {OUTCOME: Outcome.ANSWERED, "x-handler": "yes", "server-timing": "model;dur=9"}
    return web.Response(text=f"{pod.name} {len(pod.requests)}", headers=headers)


async def test_an_equal_request_gets_the_same_answer_without_a_pod(registry: Registry, make_pod: MakePod) -> None:
    """The second of two equal requests is a hit: same status, body and handler's headers, ids of its own, no pod."""
    pod = await make_pod(behave=numbered)
    async with running(pod, registry=registry) as gateway:
        first = await gateway.predict(content_type="text/plain", x_request_id="one")
        second = await gateway.predict("/predict/intent/1.0", content_type="text/plain", x_request_id="two")
        assert await uses(gateway) == {"miss": 1, "hit": 1}
    assert (first.headers["x-cache"], second.headers["x-cache"]) == ("miss", "hit")
    assert (second.status_code, second.text) == (first.status_code, first.text)
    assert (first.headers["x-request-id"], second.headers["x-request-id"]) == ("one", "two")
    assert second.headers["x-handler"] == "yes"
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-model-version"] == "1.0"
    assert "cache;desc=hit" in second.headers["server-timing"]
    assert "dur=9" not in second.headers["server-timing"]
    assert "pod;dur" not in second.headers["server-timing"]
    assert len(pod.requests) == 1


async def test_surfaces_share_answers(registry: Registry, make_pod: MakePod) -> None:
    """An answer that one protocol's client got is given to another's."""
    pod = await make_pod(behave=numbered)
    text = {"content-type": "text/plain; charset=utf-8"}
    async with (
        running(pod, registry=registry) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        call = stub.Predict(prediction_pb2.PredictRequest(runId="intent", document="hello"))
        over_grpc = (await call).response
        assert dict(await call.trailing_metadata())["x-cache"] == "miss"
        request = gateway.client.build_request("POST", "/predictions/intent", content=b"hello", headers=text)
        del request.headers["accept"]
        over_http = await gateway.client.send(request)
        fresh = stub.Predict(
            prediction_pb2.PredictRequest(runId="intent", document="hello"), metadata=(("cache-control", "no-cache"),)
        )
        await fresh
        assert dict(await fresh.trailing_metadata())["x-cache"] == "bypass"
    assert (over_http.text, over_http.headers["x-cache"]) == (over_grpc, "hit")


@pytest.mark.parametrize(
    "other",
    [
        {"body": b"hello!"},
        {"content_type": "text/html"},
        {"accept": "text/csv"},
    ],
)
async def test_what_the_handler_sees_is_told_apart(
    registry: Registry, make_pod: MakePod, other: dict[str, str]
) -> None:
    """Another body, content type or accepted form is another request."""
    pod = await make_pod(behave=numbered)
    async with running(pod, registry=registry) as gateway:
        for sent in ({}, other, {}, other):
            await gateway.predict(**{"content_type": "text/plain", **sent})  # type: ignore[arg-type]
        assert await uses(gateway) == {"miss": 2, "hit": 2}


async def test_a_moved_label_never_gives_an_old_answer(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """After a label has moved and been seen, its requests are the new version's, and moved back the old one's again."""
    pod = await make_pod(behave=numbered)
    async with running(pod, registry=registry, state_ttl_s=0.1) as gateway:
        old = await gateway.predict()
        publish(registry, tmp_path, version="1.1", serving=CACHED)
        while (new := await gateway.predict()).headers["x-model-version"] == "1.0":
            assert (new.text, new.headers["x-cache"]) == (old.text, "hit")
        assert (new.text, new.headers["x-cache"]) == ("a 2", "miss")
        registry.release("intent", "1.0", label="PROD", by="test")
        while (back := await gateway.predict()).headers["x-model-version"] == "1.1":
            assert (back.text, back.headers["x-cache"]) == (new.text, "hit")
        assert (back.text, back.headers["x-cache"]) == (old.text, "hit")


async def test_only_models_that_say_so(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Without the setting nothing is kept and nothing said of it."""
    publish(registry, tmp_path, name="plain")
    pod = await make_pod(behave=numbered)
    async with running(pod, registry=registry) as gateway:
        answers = [await gateway.predict("/predict/plain") for _ in range(2)]
        assert await uses(gateway) == {}
    assert [each.text for each in answers] == ["a 1", "a 2"]
    assert "x-cache" not in answers[1].headers


@pytest.mark.parametrize("how", ["no-cache", "no-store", "large body", "streaming", "no room"])
async def test_bypass(registry: Registry, make_pod: MakePod, tmp_path: Path, how: str) -> None:
    """Who forbids it, bodies and versions that stream, and a gateway without a cache: always a pod's answer."""
    if how == "streaming":
        publish(registry, tmp_path, version="2", serving=ServingSettings(cache=True, streaming=True))
    pod = await make_pod(behave=numbered)
    flags = {"buffered_body_bytes": 3} if how == "large body" else {"cache_bytes": 0} if how == "no room" else {}
    headers = {"cache_control": f"max-age=5, {how}"} if how.startswith("no-") else {}
    async with running(pod, registry=registry, **flags) as gateway:
        answers = [await gateway.predict(**headers) for _ in range(2)]
        assert await uses(gateway) == {"bypass": 2}
    assert [each.headers["x-cache"] for each in answers] == ["bypass", "bypass"]
    assert len(pod.requests) == 2


async def refused(pod: FakePod, request: web.Request) -> web.StreamResponse:
    return web.Response(text="too many words", status=429, headers={OUTCOME: Outcome.ANSWERED})


async def large(pod: FakePod, request: web.Request) -> web.StreamResponse:
    return web.Response(body=b"x" * 5000, headers={OUTCOME: Outcome.ANSWERED})


async def not_again(pod: FakePod, request: web.Request) -> web.StreamResponse:
    return web.Response(text="the time is", headers={OUTCOME: Outcome.ANSWERED, "cache-control": "no-store"})


@pytest.mark.parametrize("behave", [broken_model, refused, large, sending(b"one", b"two"), not_again])
async def test_failed_large_and_streamed_answers_are_not_kept(
    registry: Registry, make_pod: MakePod, behave: Behaviour
) -> None:
    """A failure, an error status, an answer over the limit, in pieces, or that the handler forbids to keep."""
    pod = await make_pod(behave=behave)
    async with running(pod, registry=registry, buffered_body_bytes=4000) as gateway:
        answers = [await gateway.predict() for _ in range(2)]
        assert await uses(gateway) == {"miss": 2}
    assert [each.headers["x-cache"] for each in answers] == ["miss", "miss"]
    assert len(pod.requests) == 2


async def test_equal_requests_in_flight_are_one(registry: Registry, make_pod: MakePod) -> None:
    """Ten equal requests at once make one request of the pod; one miss, nine hits."""
    go = asyncio.Event()

    async def held(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go.wait()
        return await numbered(pod, request)

    pod = await make_pod(behave=held)
    async with running(pod, registry=registry) as gateway:
        asking = [asyncio.create_task(gateway.predict()) for _ in range(10)]
        while await gateway.metric("marway_gateway_requests_in_flight") < 10:
            pass
        go.set()
        answers = await asyncio.gather(*asking)
        assert await uses(gateway) == {"miss": 1, "hit": 9}
    assert {each.text for each in answers} == {"a 1"}
    assert len(pod.requests) == 1


async def test_a_follower_takes_over_from_a_leader_that_leaves(registry: Registry, make_pod: MakePod) -> None:
    """When the client of the first of three equal requests leaves, one of the others asks for both."""
    go = asyncio.Event()

    async def held(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go.wait()
        return await answer(pod, request)

    pod = await make_pod(behave=held)
    async with running(pod, registry=registry) as gateway:
        leader = asyncio.create_task(gateway.predict())
        await until(lambda: pod.requests)
        followers = [asyncio.create_task(gateway.predict()) for _ in range(2)]
        while await gateway.metric("marway_gateway_requests_in_flight") < 3:
            pass
        leader.cancel()
        await until(lambda: len(pod.requests) == 2)
        go.set()
        answers = await asyncio.gather(*followers)
        assert await uses(gateway) == {"miss": 2, "hit": 1}
    assert [(each.status_code, each.text) for each in answers] == [(200, "hello")] * 2
    assert len(pod.requests) == 2


async def test_a_follower_waits_within_its_own_deadline(registry: Registry, make_pod: MakePod) -> None:
    """A follower gives up when its own time is over; the first request goes on."""
    go = asyncio.Event()

    async def held(pod: FakePod, request: web.Request) -> web.StreamResponse:
        await go.wait()
        return await answer(pod, request)

    pod = await make_pod(behave=held)
    async with running(pod, registry=registry) as gateway:
        leader = asyncio.create_task(gateway.predict())
        await until(lambda: pod.requests)
        late = await gateway.predict(x_request_timeout_ms="200")
        assert (late.status_code, late.json()["code"]) == (504, "deadline_exceeded")
        go.set()
        assert (await leader).text == "hello"
    assert len(pod.requests) == 1


# --- the cache by itself ---


def reply(data: bytes | None = b"x", status: int = 200) -> Reply:
    parsed = parse_response_headers(b"content-type: text/plain\r\nx-marway-outcome: answered\r\n")
    outcome, retry_after_s, block, *_ = parsed
    return Reply(status, outcome, retry_after_s, block, data, None)


async def given(cache: AnswerCache, key: bytes, data: bytes = b"x") -> CacheUse:
    async def ask() -> Reply:
        return reply(data)

    return (await cache.reply(key, ask))[1]


async def test_the_oldest_go_when_room_is_wanted() -> None:
    """Bytes stay within the bound: what was used longest ago goes first, what is larger than all of it never comes."""
    cache = AnswerCache(max_bytes=10_000, ttl_s=60, uses=Metrics().cache_requests)
    for key in (b"a", b"b", b"c"):
        assert await given(cache, key, b"x" * 2000) is CacheUse.MISS
    assert await given(cache, b"a") is CacheUse.HIT
    assert await given(cache, b"d", b"x" * 2000) is CacheUse.MISS
    assert 0 < cache.size <= 10_000
    assert [await given(cache, key, b"x" * 2000) for key in (b"a", b"d", b"c")] == [CacheUse.HIT] * 3
    assert await given(cache, b"b", b"x" * 2000) is CacheUse.MISS
    assert await given(cache, b"huge", b"x" * 20_000) is CacheUse.MISS
    assert await given(cache, b"huge", b"x" * 20_000) is CacheUse.MISS
    assert 0 < cache.size <= 10_000


async def test_an_answer_has_its_time() -> None:
    """An answer is given again until its time is over, and its room is free then."""
    clock = SimpleNamespace(now=0.0)
    cache = AnswerCache(max_bytes=10_000, ttl_s=60, uses=Metrics().cache_requests, clock=lambda: clock.now)
    await given(cache, b"a", b"x" * 500)
    held = cache.size
    clock.now = 59.9
    assert await given(cache, b"a") is CacheUse.HIT
    clock.now = 60.0
    assert await given(cache, b"a", b"x" * 500) is CacheUse.MISS
    assert cache.size == held


@pytest.mark.parametrize(("error", "asked"), [(ModelError("KeyError"), 1), (Unavailable("pod a was lost"), 3)])
async def test_a_final_error_is_everybodys_another_only_the_leaders(error: MarwayError, asked: int) -> None:
    """Who waits gets an error that every equal request would get; after any other one of them asks again."""
    cache = AnswerCache(max_bytes=10_000, ttl_s=60, uses=Metrics().cache_requests)
    go = asyncio.Event()
    calls: list[int] = []

    async def ask() -> Reply:
        calls.append(1)
        await go.wait()
        raise error

    asking = [asyncio.create_task(cache.reply(b"a", ask)) for _ in range(3)]
    await until(lambda: calls)
    go.set()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert [type(each) for each in ended] == [type(error)] * 3
    assert len(calls) == asked


async def test_one_follower_at_a_time_takes_over() -> None:
    """However many wait, no more than one asks at any time."""
    cache = AnswerCache(max_bytes=10_000, ttl_s=60, uses=Metrics().cache_requests)
    asking: list[int] = []
    most: list[int] = []

    async def ask() -> Reply:
        asking.append(1)
        most.append(len(asking))
        await asyncio.sleep(0)
        asking.pop()
        if len(most) < 4:
            raise Unavailable("lost")
        return reply(b"at last")

    ended = await asyncio.gather(*[cache.reply(b"a", ask) for _ in range(10)], return_exceptions=True)
    assert max(most) == 1
    assert len(most) == 4
    answers = [each for each in ended if not isinstance(each, BaseException)]
    assert len(answers) == 7
    assert {answer.data for answer, _ in answers} == {b"at last"}


def test_keys_do_not_run_together() -> None:
    """No header can be moved into another, or into the body, to make an equal key; another archive is another key."""
    keys = {
        request_key(SHA, {}, b"x"),
        request_key("1" * 64, {}, b"x"),
        request_key(SHA, {"content-type": ""}, b"x"),
        request_key(SHA, {"content-type": "ab"}, b"x"),
        request_key(SHA, {"content-type": "a"}, b"bx"),
        request_key(SHA, {"accept": "ab"}, b"x"),
        request_key(SHA, {"x-marway-explain": "1"}, b"x"),
        request_key(SHA, {"x-customer-key": "1"}, b"x"),
        request_key(SHA, {"x-customer-key": "2"}, b"x"),
        request_key(SHA, {"x-customer": "-key1"}, b"x"),
        request_key(SHA, {"x-marway-url-path": "a"}, b"x"),
    }
    assert len(keys) == 11
    two = {"a": "1", "b": "2"}
    assert request_key(SHA, two, b"") == request_key(SHA, dict(reversed(two.items())), b"")
    unlike = {
        "x-request-id": "1",
        "traceparent": "2",
        "x-marway-client": "3",
        "user-agent": "4",
        "x-forwarded-for": "5",
    }
    assert request_key(SHA, unlike, b"x") == request_key(SHA, {}, b"x")


@pytest.mark.parametrize(
    ("cache_control", "forbids"),
    [(None, False), ("max-age=0", False), ("No-Cache", True), ("max-age=1, no-store", True), ('no-cache="x"', True)],
)
def test_who_forbids_the_cache(cache_control: str | None, forbids: bool) -> None:
    """`no-cache` and `no-store` ask for an answer that is made now."""
    assert forbids_cache(cache_control) is forbids
