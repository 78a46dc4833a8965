import asyncio
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from gateway.fakes import (
    FakePod,
    Running,
    answer,
    broken_model,
    busy,
    down,
    fail,
    free_port,
    hang,
    hang_up,
    running,
    too_late,
)
from marway.errors import InvalidRequest, LoadFailed, Overloaded, Unavailable
from marway.registry import Registry
from marway.wire.headers import Outcome
from marway.wire.pods import ModelStatus
from marway_gateway.placement import score
from marway_gateway.predict.retry import RetryBudget
from marway_gateway.settings import PodAddress
from support.loop import blocked
from support.registry import publish, until

worker_died = fail(Unavailable("the worker died during the call"), Outcome.WORKER_DIED)
MakePod = Callable[..., Awaitable[FakePod]]
READY = (ModelStatus(id="run-intent-1.0", name="intent", version="1.0", state="ready"),)


async def in_order(make_pod: MakePod, count: int) -> list[FakePod]:
    """Start pods and return them in the order in which intent 1.0 asks them."""
    pods = [await make_pod(f"pod-{number}") for number in range(count)]
    return sorted(pods, key=lambda pod: score(pod.name, "intent", "1.0"), reverse=True)


def asked(pods: list[FakePod]) -> list[int]:
    return [len(pod.requests) for pod in pods]


async def retries(gateway: Running, reason: str) -> float:
    return await gateway.metric(f'marway_gateway_retries_total{{reason="{reason}"}}')


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


async def test_home_pod_gets_all_requests(registry: Registry, make_pod: MakePod) -> None:
    """A version's requests go to its first pod as long as that is well."""
    pods = await in_order(make_pod, 3)
    async with running(*pods, registry=registry) as gateway:
        for _ in range(5):
            assert (await gateway.predict()).status_code == 200
    assert asked(pods) == [5, 0, 0]


async def test_refused_connections_cost_no_retry(registry: Registry, make_pod: MakePod) -> None:
    """Pods that refuse the connection are passed over, however many, even with no retries left at all."""
    pods = await in_order(make_pod, 5)
    async with running(*pods, registry=registry, health_interval_s=60, max_retries=0) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        for pod in pods[:4]:
            await pod.stop()
        assert (await gateway.predict()).status_code == 200
        assert asked(pods) == [0, 0, 0, 0, 1]
        assert await retries(gateway, "refused") == 4
        assert (await gateway.predict()).status_code == 200
        assert await retries(gateway, "refused") == 4, "a pod that nobody listens on is not asked again"


async def test_no_retry_for_a_pod_that_cannot_be_connected_to(registry: Registry, make_pod: MakePod) -> None:
    """A pod that takes no connection in time is passed over like one that refuses it."""
    pods = await in_order(make_pod, 1)
    with socket.socket() as deaf, socket.socket() as first, socket.socket() as second:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        for filler in (first, second):  # fill its queue, so that the kernel drops what comes next
            filler.setblocking(False)
            filler.connect_ex(deaf.getsockname())
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        name = next(name for name in map(str, range(100)) if score(name, "intent", "1.0") > score(*_home(pods)))

        async def passed_over(timeout_s: float) -> float:
            options = {"health_interval_s": 60, "connect_timeout_s": timeout_s, "max_retries": 0}
            async with running(PodAddress(name, url), *pods, registry=registry, **options) as gateway:
                answered = await gateway.predict()
                assert answered.status_code == 200, answered.text
                return await retries(gateway, "connect_timeout")

        # Who is slow to ask asks after the first health check has failed, and then there is nothing to pass over.
        assert await too_late(passed_over, reached=bool, timeout_s=0.2) == 1


def _home(pods: list[FakePod]) -> tuple[str, str, str]:
    return pods[0].name, "intent", "1.0"


async def test_not_accepted_goes_round_once(registry: Registry, make_pod: MakePod) -> None:
    """Pods that do not accept are each asked once; then the caller gets a 503 with the shortest of their waits."""
    pods = await in_order(make_pod, 4)
    for pod, wait in zip(pods, (9, 4, 7, 5), strict=True):
        pod.behave = fail(Overloaded("full", retry_after_s=wait), Outcome.NOT_ACCEPTED)
    async with running(*pods, registry=registry, max_retries=0) as gateway:
        refused = await gateway.predict()
        assert await retries(gateway, "not_accepted") == 3
    assert asked(pods) == [1, 1, 1, 1]
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "4"
    assert refused.json()["code"] == "no_pod_available"
    assert f"pod {pods[0].name}: full" in refused.json()["detail"]


async def test_not_accepted_by_one(registry: Registry, make_pod: MakePod) -> None:
    """What one pod does not accept the next one gets, whole."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = busy
    async with running(*pods, registry=registry) as gateway:
        assert (await gateway.predict(body=b"wake me")).content == b"wake me"
    assert asked(pods) == [1, 1]


async def test_runtime_down_ejects_at_once(registry: Registry, make_pod: MakePod) -> None:
    """A pod whose model server is gone is ejected by the first request, which another pod answers."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = down
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        assert (await gateway.predict()).status_code == 200
        assert (await gateway.predict()).status_code == 200
        assert await gateway.metric("marway_gateway_ejections_total") == 1
        assert await retries(gateway, "runtime_down") == 1
        shown = {pod["name"]: pod for pod in (await gateway.admin.get("/pods")).json()}
    assert asked(pods) == [1, 2]
    assert not shown[pods[0].name]["eligible"]
    assert 0 < shown[pods[0].name]["ejected_for_s"] <= 30


async def test_ejected_pod_comes_back_when_it_is_ready(registry: Registry, make_pod: MakePod) -> None:
    """An ejected pod gets requests again as soon as it reports that it is ready."""
    pods = await in_order(make_pod, 2)
    pods[0].behave, pods[0].ready = down, True
    async with running(*pods, registry=registry, health_interval_s=0.25) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        pods[0].ready = False
        assert (await gateway.predict()).status_code == 200
        before = pods[0].polls
        await until(lambda: pods[0].polls > before + 1)
        assert (await gateway.predict()).status_code == 200
        assert len(pods[0].requests) <= 1
        pods[0].behave, pods[0].ready = answer, True
        before = pods[0].polls
        await until(lambda: pods[0].polls > before + 1)
        count = len(pods[0].requests)
        assert (await gateway.predict()).status_code == 200
        assert len(pods[0].requests) == count + 1


async def test_retries_are_bounded(registry: Registry, make_pod: MakePod) -> None:
    """A request that every pod loses is tried three times in all."""
    pods = await in_order(make_pod, 5)
    for pod in pods:
        pod.behave = down
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        lost = await gateway.predict()
        assert await retries(gateway, "runtime_down") == 2
        assert await gateway.metric("marway_gateway_ejections_total") == 2, "never more than half of them"
    assert asked(pods) == [1, 1, 1, 0, 0]
    assert lost.status_code == 503
    assert lost.json()["code"] == "runtime_down"
    assert "retry-after" in lost.headers


async def test_lost_connection_is_retried(registry: Registry, make_pod: MakePod) -> None:
    """A request whose pod closed the connection is sent to the next, and five in a row eject the pod."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = hang_up
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls for pod in pods))
        for _ in range(7):
            assert (await gateway.predict()).status_code == 200
        assert await gateway.metric("marway_gateway_ejections_total") == 1
        assert await retries(gateway, "connection_lost") == 5
    assert asked(pods) == [5, 7]


@pytest.mark.parametrize(
    ("behave", "status", "code"),
    [
        (broken_model, 422, "model_error"),
        (fail(InvalidRequest("no good"), Outcome.REFUSED), 400, "invalid_request"),
        (fail(LoadFailed("cannot load"), Outcome.FAILED), 500, "load_failed"),
    ],
)
async def test_final_answers(
    registry: Registry, make_pod: MakePod, behave: Callable[..., object], status: int, code: str
) -> None:
    """What says something about the request or the model is passed on and never tried again."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = behave  # type: ignore[assignment]
    async with running(*pods, registry=registry) as gateway:
        refused = await gateway.predict(x_request_id="mine")
    assert asked(pods) == [1, 0]
    assert (refused.status_code, refused.json()["code"]) == (status, code)
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["request_id"] == "mine"
    assert refused.headers["x-model-version"] == "1.0"


async def test_what_is_no_sidecar(registry: Registry, make_pod: MakePod) -> None:
    """An answer without an outcome comes from no sidecar: the next pod is asked."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = fail(Overloaded("from some proxy"), None)
    async with running(*pods, registry=registry) as gateway:
        assert (await gateway.predict()).status_code == 200
        assert await retries(gateway, "bad_answer") == 1


async def test_panic(registry: Registry, make_pod: MakePod) -> None:
    """When all pods are ejected they are asked anyway."""
    pods = await in_order(make_pod, 1)
    pods[0].behave = down
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: pods[0].polls)
        assert (await gateway.predict()).status_code == 503
        pods[0].behave = answer
        assert (await gateway.predict()).status_code == 200


async def test_no_pods(registry: Registry) -> None:
    """Without any pod configured, the answer is a 503 that says so."""
    async with running(registry=registry) as gateway:
        refused = await gateway.predict()
    assert refused.status_code == 503
    assert refused.json()["code"] == "no_pod_available"
    assert "no pods are configured" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1


async def test_all_pods_down(registry: Registry) -> None:
    """When no pod answers, the 503 names each and what is wrong with it."""
    nobody = PodAddress("lonely", f"http://127.0.0.1:{free_port()}")
    async with running(nobody, registry=registry) as gateway:
        refused = await gateway.predict()
    assert refused.status_code == 503
    assert "pod lonely refused the connection" in refused.json()["detail"]


async def test_draining_pods(registry: Registry, make_pod: MakePod) -> None:
    """A pod that drains gets no request, not even when it is the only one."""
    pods = await in_order(make_pod, 1)
    pods[0].draining = True
    async with running(*pods, registry=registry) as gateway:
        await until(lambda: pods[0].polls > 1)
        refused = await gateway.predict()
    assert asked(pods) == [0]
    assert "is draining" in refused.json()["detail"]


async def test_deadline(registry: Registry, make_pod: MakePod) -> None:
    """A pod that does not answer costs the caller no more than its deadline and 100 ms, and loses the request."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = hang
    asked_ms: list[float] = []
    async with running(*pods, registry=registry) as gateway, blocked() as without_turn_s:

        async def ask(timeout_s: float) -> httpx.Response:
            asked_ms.append(round(timeout_s * 1000))
            return await gateway.predict(x_request_timeout_ms=f"{asked_ms[-1]}")

        late = await too_late(ask, reached=lambda _: pods[0].requests)
        total_ms = float(late.headers["server-timing"].rpartition("total;dur=")[2])
        # Pod, gateway and caller are one process here: what the machine kept from it is no delay of the gateway's.
        assert asked_ms[-1] <= total_ms <= asked_ms[-1] + 100 + 1000 * sum(without_turn_s)
        assert late.status_code == 504
        assert late.json()["code"] == "deadline_exceeded"
        assert f"pod {pods[0].name} had not answered" in late.json()["detail"]
        await until(lambda: pods[0].cancelled == len(pods[0].requests))
        timeouts = await gateway.metric(
            'marway_gateway_request_duration_seconds_count{model="intent",outcome="timeout",surface="native",version="1.0"}'
        )
    assert timeouts == len(asked_ms)
    assert asked(pods)[1] == 0
    assert 0 < int(pods[0].requests[-1].headers["x-request-timeout-ms"]) <= asked_ms[-1]


async def test_deadline_covers_all_attempts(registry: Registry, make_pod: MakePod) -> None:
    """A second attempt gets what the first one left of the deadline."""
    pods = await in_order(make_pod, 2)

    async def slowly_busy(pod: FakePod, request: object) -> object:
        await asyncio.sleep(0.1)  # the pod's own slowness, not a wait of this test
        return await busy(pod, request)  # type: ignore[arg-type]

    pods[0].behave = slowly_busy  # type: ignore[assignment]
    async with running(*pods, registry=registry) as gateway:
        assert (await gateway.predict(x_request_timeout_ms="60000")).status_code == 200
    first, second = (int(pod.requests[0].headers["x-request-timeout-ms"]) for pod in pods)
    assert 0 < second <= first - 90


async def test_client_that_goes_away(registry: Registry, make_pod: MakePod) -> None:
    """When the client closes its connection the pod's request is cancelled and no other pod is asked."""
    pods = await in_order(make_pod, 2)
    pods[0].behave = hang
    async with running(*pods, registry=registry) as gateway:
        asking = asyncio.create_task(gateway.predict())
        await until(lambda: pods[0].requests)
        asking.cancel()
        await asyncio.wait({asking})
        await until(lambda: pods[0].cancelled == 1)
        line = (
            "marway_gateway_request_duration_seconds_count"
            '{model="intent",outcome="cancelled",surface="native",version="1.0"}'
        )
        while not await gateway.metric(line):
            pass
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0
    assert asked(pods) == [1, 0]


async def test_a_request_whose_worker_died_is_tried_once_more(registry: Registry, make_pod: MakePod) -> None:
    """A worker that died with the request is followed by one attempt elsewhere, and its pod stays in rotation."""
    pods = await in_order(make_pod, 3)
    pods[0].behave = worker_died
    async with running(*pods, registry=registry) as gateway:
        assert (await gateway.predict()).status_code == 200
        assert asked(pods) == [1, 1, 0]
        assert await retries(gateway, "worker_died") == 1
        assert (await gateway.predict()).status_code == 200
        assert asked(pods) == [2, 2, 0], "the pod itself is well and is asked first again"


async def test_a_request_that_kills_two_workers_gets_no_third(registry: Registry, make_pod: MakePod) -> None:
    """A request that killed two workers is answered as the model's error, and nobody is told to come back with it."""
    pods = await in_order(make_pod, 3)
    for pod in pods:
        pod.behave = worker_died
    async with running(*pods, registry=registry) as gateway:
        answered = await gateway.predict()
        assert (answered.status_code, answered.json()["code"]) == (500, "model_error")
        assert "retry-after" not in answered.headers
    assert sum(asked(pods)) == 2


async def test_a_lone_pod_whose_worker_died_is_asked_once_more(registry: Registry, make_pod: MakePod) -> None:
    """With no other pod left, a request whose worker died goes to the same pod again, which has other workers."""
    (pod,) = await in_order(make_pod, 1)

    async def first_dies(pod: FakePod, request: web.Request) -> web.StreamResponse:
        pod.behave = answer
        return await worker_died(pod, request)

    pod.behave = first_dies
    async with running(pod, registry=registry) as gateway:
        assert (await gateway.predict()).status_code == 200
        assert await retries(gateway, "worker_died") == 1
    assert asked([pod]) == [2]


async def test_a_pod_that_dies_with_many_requests_has_a_share_of_them_retried_at_once(
    registry: Registry, make_pod: MakePod
) -> None:
    """Of 30 requests on a pod that dies a fifth are retried together, and the others as places become free."""
    pods = await in_order(make_pod, 2)
    for pod in pods:
        pod.models = READY
    all_there, under_way, most = asyncio.Event(), 0, 0

    async def dies_with_all(pod: FakePod, request: web.Request) -> web.StreamResponse:
        if len(pod.requests) == 30:
            all_there.set()
        await all_there.wait()
        return await hang_up(pod, request)

    async def six_at_once(pod: FakePod, request: web.Request) -> web.StreamResponse:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await until(lambda: most == 6)
        under_way -= 1
        return await answer(pod, request)

    pods[0].behave, pods[1].behave = dies_with_all, six_at_once
    options = {"retry_budget_percent": 20, "retry_budget_min": 1, "retry_wait_s": 60, "retry_backoff_s": 0.001}
    async with running(*pods, registry=registry, spill_requests=100, **options) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        answered = await asyncio.gather(*(gateway.predict() for _ in range(30)))
    assert {each.status_code for each in answered} == {200}
    assert asked(pods) == [30, 30]
    assert most == 6


async def test_waiting_for_a_load_costs_no_place_in_the_budget(registry: Registry, make_pod: MakePod) -> None:
    """Of 12 requests on the only pod that has a version, which dies, all wait together for another pod's load."""
    pods = await in_order(make_pod, 2)
    pods[0].models = READY
    all_there, loaded = asyncio.Event(), asyncio.Event()

    async def dies_with_all(pod: FakePod, request: web.Request) -> web.StreamResponse:
        if len(pod.requests) == 12:
            all_there.set()
        await all_there.wait()
        return await hang_up(pod, request)

    async def loads(pod: FakePod, request: web.Request) -> web.StreamResponse:
        if len(pod.requests) == 12:
            loaded.set()
        await loaded.wait()
        return await answer(pod, request)

    pods[0].behave, pods[1].behave, pods[1].may_load = dies_with_all, loads, loaded
    options = {"retry_budget_percent": 0, "retry_budget_min": 1, "retry_wait_s": 5, "retry_backoff_s": 0.001}
    async with running(*pods, registry=registry, **options) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        answered = await asyncio.gather(*(gateway.predict() for _ in range(12)))
    assert {each.status_code for each in answered} == {200}
    assert asked(pods) == [12, 12]


async def test_budget_follows_the_requests_under_way() -> None:
    """A fifth of the requests under way may be retries and three always; one more waits for a place, or gives up."""
    budget = RetryBudget(percent=20, minimum=3, backoff_s=0, backoff_max_s=0, wait_s=0.05, requests=lambda: 25)
    granted = [await budget.enter(1) for _ in range(6)]
    assert granted == [True] * 5 + [False]
    budget_with_time = RetryBudget(percent=20, minimum=1, backoff_s=0, backoff_max_s=0, wait_s=10, requests=int)

    async def second() -> bool:
        granted = await budget_with_time.enter(1)
        budget_with_time.leave()
        return granted

    assert await budget_with_time.enter(1)
    waiting = [asyncio.create_task(second()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.wait({waiting[0]})
    assert not waiting[1].done()
    budget_with_time.leave()
    assert [await each for each in waiting[1:]] == [True, True]
