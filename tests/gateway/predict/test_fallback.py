"""Fallbacks: who answers where a version has no room, or is too slow; over every surface, once and never a chain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from gateway.fakes import Behaviour, FakePod, answer, broken_model, busy, hang, running
from gateway.handlers import TEXT, ready
from gateway.observe.test_every_ending import TENSOR, model
from gateway.traffic.test_division import over_all
from marway.errors import InvalidInput
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.headers import FALLBACK, TRAFFIC
from support.dividing import divide, held, traffic_of
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
INSTEAD = "spare/2.0"


def only(behaviours: dict[str, Behaviour], otherwise: Behaviour) -> Behaviour:
    """Answer by the version that is asked for, as its path ends."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        found = next((each for end, each in behaviours.items() if request.path.endswith(end)), otherwise)
        return await found(pod, request)

    return behave


def published(registry: Registry, tmp_path: Path, *, names: tuple[str, ...] = ("intent",), **serving: Any) -> None:
    """Models with a fallback, which is another model's version with another signature."""
    streaming = {"story": True}
    for name in names:
        settings = ServingSettings(fallback=INSTEAD, streaming=streaming.get(name, False), **serving)
        publish(registry, tmp_path, name, serving=settings)
    publish(registry, tmp_path, "spare", "2.0", serving=ServingSettings(streaming=bool(names[1:])), signature=TEXT)


def asked(pod: FakePod) -> list[str]:
    return [request.path.removeprefix("/predict/") for request in pod.requests]


async def test_every_surface(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """Whatever the protocol, a version without room is answered by its fallback, which the caller is told."""
    published(registry, tmp_path, names=("intent", "story"))
    pod = await make_pod(
        behave=only({"/1.0": busy}, model),
        models=held("1.0", models=("intent", "story")) + held("2.0", models=("spare",)),
    )
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        told = await over_all(gateway, header=FALLBACK, parameter="marway_fallback")
        infer = await gateway.client.post("/v2/models/intent/infer", json={"inputs": [TENSOR]})
        counted = [
            await gateway.metric(f'marway_gateway_fallbacks_total{{model="{name}",reason="no_room",version="1.0"}}')
            for name in ("intent", "story")
        ]
    assert set(told.values()) == {INSTEAD}
    assert sum(counted) == len(told) + 1
    document = infer.json()
    assert (document["model_name"], document["model_version"]) == ("spare", "2.0")
    assert document["outputs"][0]["name"] == "prediction", "the answer is read as the fallback's"


async def test_too_slow(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A version that has not answered in time is given up, and its fallback asked; a quick answer stays its own."""
    published(registry, tmp_path, fallback_after_s=0.05)
    pod = await make_pod(behave=only({"/1.0": hang}, answer), models=held("1.0") + held("2.0", models=("spare",)))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        got = await gateway.predict()
        assert (got.status_code, got.headers[FALLBACK], got.headers["x-model-name"]) == (200, INSTEAD, "spare")
        assert await gateway.metric('marway_gateway_fallbacks_total{model="intent",reason="slow",version="1.0"}') == 1
        await until(lambda: pod.cancelled == 1)
        pod.behave = answer
        assert FALLBACK not in (await gateway.predict()).headers
    assert asked(pod) == ["intent/1.0", INSTEAD, "intent/1.0"]


async def test_what_is_no_lack_of_room(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """The model's own error is passed on, and a caller that gives way is refused as before."""
    published(registry, tmp_path)
    pod = await make_pod(behave=broken_model, models=held("1.0") + held("2.0", models=("spare",)))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        failed = await gateway.predict()
        pod.behave = busy
        job = await gateway.predict(x_marway_priority="batch")
    assert (failed.status_code, FALLBACK in failed.headers) == (422, False)
    assert (job.status_code, FALLBACK in job.headers) == (503, False)
    assert asked(pod) == ["intent/1.0"] * 2


@pytest.mark.parametrize(
    ("fallback", "says"),
    [
        ("spare/2.0", "nor can its fallback spare/2.0: no pod can take spare 2.0 now"),
        ("gone/1.0", "its fallback gone/1.0 cannot answer: there is no model 'gone'"),
        ("intent/PROD", "its fallback intent/PROD cannot answer: it is the same version"),
    ],
)
async def test_a_fallback_that_cannot_answer(
    registry: Registry, make_pod: MakePod, tmp_path: Path, fallback: str, says: str
) -> None:
    """The error is the version's own and says what the fallback came to; a fallback's own fallback is not asked."""
    publish(registry, tmp_path, "intent", serving=ServingSettings(fallback=fallback))
    publish(registry, tmp_path, "spare", "2.0", serving=ServingSettings(fallback="intent/1.0"))
    pod = await make_pod(behave=busy, models=held("1.0") + held("2.0", models=("spare",)))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        got = await gateway.predict()
    problem = got.json()
    assert (got.status_code, problem["code"], problem["model"]) == (503, "no_pod_available", "intent")
    assert problem["detail"].startswith("no pod can take intent 1.0 now")
    assert says in problem["detail"]
    assert len(asked(pod)) == (2 if fallback == "spare/2.0" else 1)


async def test_of_a_divided_label(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A candidate without room goes to its base; a base without room to its fallback, which is on neither side."""
    published(registry, tmp_path)
    publish(registry, tmp_path, "intent", "2.0", label=None, serving=ServingSettings(fallback=INSTEAD))
    divide(registry, "intent", traffic_of("2.0", percent=100))
    pod = await make_pod(
        behave=only({"intent/2.0": busy}, answer), models=held("1.0", "2.0") + held("2.0", models=("spare",))
    )
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        base = await gateway.predict()
        pod.behave = only({"intent/2.0": busy, "intent/1.0": busy}, answer)
        spare = await gateway.predict()
    assert (base.headers[TRAFFIC], FALLBACK in base.headers) == ("base", False)
    assert (spare.headers[FALLBACK], TRAFFIC in spare.headers) == (INSTEAD, False)
    assert asked(pod) == ["intent/2.0", "intent/1.0", "intent/2.0", "intent/1.0", INSTEAD]


async def test_it_is_loaded_before_it_is_needed(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A fallback that no pod has ready is loaded as soon as its version is asked, which waits for nothing of it."""
    published(registry, tmp_path)
    pod = await make_pod(models=held("1.0"))
    async with running(pod, registry=registry) as gateway:
        await ready(gateway)
        assert (await gateway.predict()).headers["x-model-version"] == "1.0"
        await until(lambda: pod.loads)
    assert (asked(pod), len(pod.loads), "spare" in pod.loads[0]) == (["intent/1.0"], 1, True)


def test_settings_that_cannot_be(registry: Registry, tmp_path: Path) -> None:
    """A fallback names a version or a label, and a time has something to lead to."""
    publish(registry, tmp_path, "intent")
    for changes, says in (
        ({"fallback": "spare"}, "names no version: give MODEL/VERSION or MODEL/LABEL"),
        ({"fallback": "spare/"}, "version"),
        ({"fallback_after_s": 1}, "says when the 'fallback' is asked, and there is none"),
        ({"fallback": INSTEAD, "fallback_after_s": 0}, "greater than 0"),
    ):
        with pytest.raises(InvalidInput, match=says):
            registry.set_serving("intent", version="1.0", set_fields=changes, by="test")
