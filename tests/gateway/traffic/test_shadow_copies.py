"""Shadow copies over a whole gateway: callers notice nothing, pods are told to give way, and the report is true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.admin_pod import AdminPod
from gateway.fakes import Running, running
from marway.errors import ModelError, NoRoomToSpare
from marway.registry import Registry
from marway.shadow.report import read_report
from marway.wire.headers import OUTCOME, PRIORITY, RUN, Outcome
from marway.wire.problems import CONTENT_TYPE, problem_of
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from support.in_process import Marway
from support.registry import publish

ROUTE = "/models/intent/labels/PROD/shadow"
Answer = Callable[[str, bytes], tuple[int, Any] | Exception]


def by_length(version: str, body: bytes) -> tuple[int, Any]:
    """1.1 takes long texts for songs, and is less sure."""
    song = version == "1.1" and len(body) > 4
    return 200, {"label": "song" if song else "joke", "score": 0.5 if version == "1.1" else 0.9}


class ModelPod(AdminPod):
    """A pod whose versions answer as a function says; it notes what copies came, and when others were in flight."""

    answers: Answer = staticmethod(by_length)
    copies: list[dict[str, str]]
    hold: asyncio.Event | None = None


async def model(pod: Any, request: web.Request) -> web.StreamResponse:
    seen, version = pod.requests[-1], request.match_info["version"]
    if seen.headers.get(PRIORITY) == "shadow":
        pod.copies.append(seen.headers)
        if pod.hold is not None:
            await pod.hold.wait()
    made = pod.answers(version, seen.body)
    if isinstance(made, Exception):
        assert isinstance(made, (ModelError, NoRoomToSpare))
        problem, headers = problem_of(made)
        outcome = Outcome.MODEL_ERROR if isinstance(made, ModelError) else Outcome.NOT_ACCEPTED
        headers |= {OUTCOME: outcome}
        return web.Response(body=problem.body(), status=problem.status, content_type=CONTENT_TYPE, headers=headers)
    status, value = made
    run = "0,2000,1,1" if version == "1.1" else "0,1000,1,1"
    return web.json_response(value, status=status, headers={OUTCOME: Outcome.ANSWERED, RUN: run})


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    """intent 1.0 at PROD and 1.1, of which bodies are kept."""
    publish(registry, tmp_path, version="1.0", serving={"observe": "bodies"})
    publish(registry, tmp_path, version="1.1", label=None, serving={"observe": "bodies"})


@pytest.fixture
async def served(registry: Registry) -> AsyncIterator[tuple[Running, ModelPod]]:
    pod = ModelPod("a", registry=registry, behave=model)  # type: ignore[arg-type]
    pod.copies = []
    await pod.start()
    try:
        async with running(pod, registry=registry, observations_flush_s=0.2) as gateway:
            while not all(each["status"] for each in (await gateway.admin.get("/pods")).json()):
                await asyncio.sleep(0.01)
            yield gateway, pod
    finally:
        await pod.stop()


async def started(gateway: Running, **fields: Any) -> None:
    answered = await gateway.admin.post(ROUTE, json={"version": "1.1", **fields})
    assert answered.status_code == 200, answered.text


async def eventually(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await check():
            await asyncio.sleep(0.02)


async def copies(gateway: Running, outcome: str) -> float:
    return await gateway.metric(f'marway_gateway_shadow_requests_total{{outcome="{outcome}"}}')


async def reported(gateway: Running, answered: int) -> dict[str, Any]:
    """Return what the report says of 1.1 once so many copies were answered."""
    found: dict[str, Any] = {}

    async def there() -> bool:
        found.update((await gateway.admin.get(ROUTE)).json()["versions"][0])
        return bool(found["answered"] >= answered)

    await eventually(there)
    return found


async def test_callers_notice_nothing_and_the_report_tells(
    served: tuple[Running, ModelPod],
    registry: Registry,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """All requests of the label are copied after their answers; agreement, fields, failures and times are told."""
    gateway, pod = served
    seen: list[RequestInfo] = []
    copied = Telemetry.copied
    monkeypatch.setattr(Telemetry, "copied", lambda self, info: (seen.append(info), copied(self, info))[1])
    none = await gateway.admin.get(ROUTE)
    assert (none.status_code, none.json()["code"]) == (404, "rollout_not_found")
    same = await gateway.admin.post(ROUTE, json={"version": "1.0"})
    assert (same.status_code, same.json()["code"]) == (409, "state_conflict")
    pod.asked.clear()
    await started(gateway)
    assert pod.asked == ["POST /models/intent/1.1/load?prove=false"]  # copies load nothing
    texts = [b"ab", b"abcdef", b"abc", b"x"]
    for number, text in enumerate(texts * 3):
        answered = await gateway.predict("/predict/intent/PROD", text, x_request_id=f"r{number}")
        assert answered.json() == {"label": "joke", "score": 0.9}
        assert answered.headers["x-model-version"] == "1.0"
    exact = await gateway.predict("/predict/intent/1.0", b"exact")
    assert exact.status_code == 200
    answered = await gateway.predict("/predict/intent/PROD", b"text", x_marway_priority="batch")
    assert (answered.status_code, pod.requests[-1].headers[PRIORITY]) == (200, "batch")  # which is not copied
    for other in ("shadow", "high"):
        refused = await gateway.predict("/predict/intent/PROD", b"text", x_marway_priority=other)
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    found = await reported(gateway, 12)
    assert (found["answered"], found["compared"], found["failed"], found["percent"]) == (12, 12, 0, 100.0)
    assert found["agreement"] == 0.75
    assert {each["name"]: each["count"] for each in found["fields"]} == {"score": 12, "label": 3}
    assert (found["latency"]["p50_ms"], found["base_latency"]["p50_ms"]) == pytest.approx((2, 1), rel=0.06)
    decision = next(each for each in found["examples"] if each["kind"] == "decision")
    assert (decision["request_id"], "song" in decision["text"]) == ("r9", True)
    assert {headers["x-request-id"] for headers in pod.copies} == {f"r{number}" for number in range(12)}
    assert await copies(gateway, "ok") == 12
    kept = [info for info in seen if info.request_id == "r1"]
    assert [(info.role, info.version, info.input, info.outcome) for info in kept] == [
        ("shadow", "1.1", b"abcdef", "ok")
    ]
    assert json.loads(kept[0].output or b"") == {"label": "song", "score": 0.5}
    assert kept[0].prediction_id not in (None, exact.headers["x-prediction-id"])
    assert await gateway.metric("marway_gateway_requests_in_flight") == 0
    stopped = await gateway.admin.delete(ROUTE, params={"version": "1.1"})
    assert stopped.json()["rollout"]["action"] == "shadow"
    await gateway.predict("/predict/intent/PROD", b"after")
    assert len(pod.copies) == 12
    report = read_report(registry, "intent", "PROD")
    assert (report.running, report.base, report.versions[0].answered) == (False, "1.0", 12)
    monkeypatch.setenv("COLUMNS", "200")
    said = await asyncio.to_thread(
        Marway(monkeypatch, capsys), "shadow", "report", "intent", "--registry", registry.url
    )
    assert said.code == 0, said.err
    for words in ("decide alike", "75.00%", "fields that differ", "score"):
        assert words in said.out


@pytest.mark.extended  # test_shadow_judging.py has what is counted, test_shadow_comparing.py what a shape is
async def test_failures_and_other_shapes(served: tuple[Running, ModelPod]) -> None:
    """A copy that fails is counted, without its caller noticing; so is an answer with another field."""
    gateway, pod = served

    def odd(version: str, body: bytes) -> tuple[int, Any] | Exception:
        if version == "1.0":
            return 200, {"label": "joke"}
        return ModelError("KeyError: 'text'") if body == b"bad" else (200, {"lable": "joke"})

    pod.answers = odd
    await started(gateway)
    for text in [b"good"] * 12 + [b"bad"]:
        assert (await gateway.predict("/predict/intent/PROD", text)).json() == {"label": "joke"}
    found = await reported(gateway, 13)
    assert (found["failed"], found["base_failed"], found["compared"]) == (1, 0, 12)
    assert found["shape_differs"] == 2  # the first ten of the base say what its shape is
    assert found["errors"] == [{"name": "KeyError: 'text'", "count": 1}]
    assert await copies(gateway, "model_error") == 1


@pytest.mark.extended  # `test_dropped` has the limits
async def test_what_is_too_much_is_dropped(served: tuple[Running, ModelPod]) -> None:
    """Where copies hang, few are under way and few wait; all others are dropped, and callers have their answers."""
    gateway, pod = served
    pod.hold = asyncio.Event()
    await started(gateway)
    for _ in range(100):
        assert (await gateway.predict("/predict/intent/PROD", b"text")).status_code == 200
    assert len(pod.copies) == 16
    assert await copies(gateway, "full") == 100 - 16 - 64
    (row,) = (await gateway.admin.get("/pods")).json()
    assert row["requests_in_flight"] == 0  # copies are no load, by which callers would be sent elsewhere
    pod.hold.set()
    assert (await reported(gateway, 80))["dropped"] == {"full": 20}


@pytest.mark.extended  # `test_copies_load_nothing` and `test_few_wait` have the pod's side of it, in a moment
async def test_no_room_and_not_ready(served: tuple[Running, ModelPod]) -> None:
    """A pod that has no room to spare, or has lost the version, gets none, once each; neither is a failure."""
    gateway, pod = served
    pod.answers = lambda version, body: NoRoomToSpare("16 wait") if version == "1.1" else (200, {"label": "joke"})
    await started(gateway)
    await gateway.predict("/predict/intent/PROD", b"text")
    await eventually(lambda: is_(copies(gateway, "no_room"), 1))
    assert len(pod.copies) == 1
    pod.models = tuple(each for each in pod.models if each.version != "1.1")
    pod.tell(removed=("run-intent-1.1",))
    pod.refusal = NoRoomToSpare("no memory")

    async def not_ready() -> bool:
        await gateway.predict("/predict/intent/PROD", b"text")
        return await copies(gateway, "not_ready") > 0

    await eventually(not_ready)
    assert (await gateway.admin.get(ROUTE)).json()["versions"][0]["failed"] == 0


async def is_(value: Awaitable[float], expected: float) -> bool:
    return await value == expected


@pytest.mark.extended  # `test_values_are_told_where_bodies_are_kept` has what decides it
async def test_redacted_words_stay_out(registry: Registry, served: tuple[Running, ModelPod]) -> None:
    """Where something is redacted, or bodies are not kept, the report has counts and fields, and no values."""
    gateway, _ = served
    registry.set_serving("intent", version="1.1", set_fields={"observe_redact": ["label"]}, unset=(), by="test")
    await started(gateway)
    await gateway.predict("/predict/intent/PROD", b"a long text")
    text = json.dumps(await reported(gateway, 1))
    assert '"label"' in text
    assert "song" not in text
    assert "joke" not in text
