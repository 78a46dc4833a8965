"""The pages of pods, rollouts, shadow copies, events and settings, as they are sent, and what is behind them."""

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from gateway.console.scene import Scene, scene
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_gateway.admin.settings import settings_of
from marway_gateway.settings import GatewaySettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
PAGE = {"Accept": "text/html"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    scratch: Path = tmp_path_factory.mktemp("scene")
    async with scene(Registry(DirectoryStore(scratch / "registry")), scratch) as made:
        yield made


async def text_of(shown: Scene, path: str, **query: str) -> str:
    answer = await shown.gateway.admin.get(path, headers=PAGE, params=query)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8"), answer.text
    return re.sub(r"\s+", " ", answer.text)


async def json_of(shown: Scene, path: str, **query: Any) -> Any:
    return (await shown.gateway.admin.get(path, params=query)).raise_for_status().json()


async def test_pods(shown: Scene) -> None:
    """A pod shows its memory by version, what failed and why, what was evicted, and the buttons that steer it."""
    page = await text_of(shown, "/console/pods")
    bar = "Memory of pod-0: intent 1.0 1.86 GiB, intent 1.1 1.37 GiB, sentiment 2.0 900 MiB, of 8 GiB"
    assert f'aria-label="{bar}"' in page
    assert "handler.py raised KeyError: &#39;vocabulary&#39; in initialize (line 31)" in page
    assert "evicted for memory" in page
    assert "GPU 0, NVIDIA L4" in page
    for method, path in (
        ("POST", "pods/pod-0/drain"),
        ("POST", "models/intent/versions/1.0/unload?pod=pod-0"),
        ("POST", "models/intent/versions/1.2/load?pod=pod-0"),
        ("PATCH", "models/intent/serving"),
    ):
        assert f'data-method="{method}" data-path="{path}"' in page
    assert "pod-1" not in await text_of(shown, "/console/pods", contains="-0")
    assert "No pod&#39;s name" in await text_of(shown, "/console/pods", contains="nobody") or "No pod's name" in page


async def test_rollouts(shown: Scene) -> None:
    """What is divided now is listed, as JSON too, and a rollout shows its evidence over time and its buttons."""
    assert [(each["model"], each["rollout"] is not None) for each in await json_of(shown, "/rollouts")] == [
        ("intent", True),
        ("sentiment", False),
    ]
    page = await text_of(shown, "/console/rollouts")
    assert 'href="../console/rollouts/intent/PROD"' in page
    assert 'href="../console/shadow/sentiment/PROD"' in page
    course = await json_of(shown, "/models/intent/labels/PROD/rollout/course")
    assert len(course["points"]) >= 4  # those of before, and this gateway's own
    assert {tuple(each["guards"]) for each in course["points"]} == {("errors", "latency", "disagreement")}
    page = await text_of(shown, "/console/rollouts/intent/PROD")
    assert "The case against the candidate" in page
    assert page.count('<figure class="plot-figure">') == 4
    for action in ("pause", "promote", "abort"):
        assert f'data-path="models/intent/labels/PROD/rollout/{action}"' in page
    assert "There was no rollout of this label yet" in await text_of(shown, "/console/rollouts/sentiment/STG")


async def test_shadow_report(shown: Scene) -> None:
    """What copies told stands beside the base's, with the requests that were answered differently."""
    page = await text_of(shown, "/console/shadow/sentiment/PROD")
    assert "98.4 % of 5118 compared" in page
    assert "&#34;neutral&#34; is now &#34;positive&#34;" in page
    assert 'href="../../../console/requests?id=01JD0Z6Y8Q6V5T4S3R2P1N0M9J"' in page
    assert "No requests of this label were copied yet" in await text_of(shown, "/console/shadow/intent/STG")


async def test_events(shown: Scene) -> None:
    """Events are listed newest first, as JSON too, by model, type and time; what is no type is refused by name."""
    found = await json_of(shown, "/events")
    assert [each["subject"] for each in found] == ["sentiment", "intent", "sentiment", "intent"]
    only = await json_of(shown, "/events", model="intent", type="dev.marway.model.rolled_back", limit=1)
    assert [(each["type"], each["data"]["by"]) for each in only] == [("dev.marway.model.rolled_back", "ben")]
    refused = await shown.gateway.admin.get("/events", params={"type": "dev.marway.model.releesed"})
    assert refused.status_code == 400
    assert "dev.marway.model.released" in refused.json()["detail"]
    page = await text_of(shown, "/console/events", model="sentiment")
    assert "quality below minimum" in page
    assert "ben" not in page
    assert '<option value="dev.marway.model.drifted">drifted</option>' in page


async def test_settings(shown: Scene) -> None:
    """Every setting is shown with its meaning, and no secret: neither in JSON nor on the page."""
    found = {each["name"]: each for each in await json_of(shown, "/settings")}
    assert list(found) == list(GatewaySettings.model_fields)
    assert all(each["meaning"] for each in found.values())
    told = found["cors_origins"]
    assert (told["value"], told["default"], told["given"]) == (["https://app.example.com"], [], True)
    access = await json_of(shown, "/access")
    assert (access["webhooks"][0]["host"], access["events_sent"]) == ("https://ci.example.com", False)
    page = await text_of(shown, "/console/settings")
    assert "MARWAY_GATEWAY_DEFAULT_TIMEOUT_S" in page
    for text in (page, str(access), str(found)):
        assert "s3cr3t-path" not in text
        assert "whsec_" not in text
    assert "MARWAY_GATEWAY_CORS_ORIGINS" not in await text_of(shown, "/console/settings", contains="converters")


async def test_secrets_of_settings() -> None:
    """Passwords in URLs are hidden wherever a URL is, also one with an @ in it that should have been encoded."""
    settings = GatewaySettings(pods=()).model_copy(
        update={"registry": "s3://b/p?key=geheim", "observations": "s3://ana:ge@heim@bucket/x?y"}
    )
    found = {each.name: each.value for each in settings_of(settings)}
    assert (found["registry"], found["observations"]) == ("s3://b/p?***", "s3://***@bucket/x?***")


async def test_live_parts(shown: Scene) -> None:
    """A page's live part is sent at once, and again when something on it changed; what is not live is not there."""

    async def parts(stream: httpx.Response) -> AsyncIterator[str]:
        data: list[str] = []
        async for line in stream.aiter_lines():
            if line.startswith("data: "):
                data.append(line.removeprefix("data: "))
            elif not line and data:
                yield "\n".join(data)
                data = []

    admin, pod = shown.gateway.admin, shown.pods[1]
    async with admin.stream("GET", "/console/live/pods?contains=pod-1", headers=PAGE) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        following = parts(stream)
        first = await asyncio.wait_for(anext(following), 30)
        assert first.startswith('<div id="live" data-live>')
        assert "pod-1" in first
        assert "pod-0" not in first
        pod.draining = True
        pod.tell()
        second = await asyncio.wait_for(anext(following), 30)
        assert "Have pod-1 take requests again" in second
        pod.draining = False
        pod.tell()
        await following.aclose()
    missing = await admin.get("/console/live/nothing", headers={"Accept": "application/json"})
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (await admin.get("/console/live/live/pods")).status_code == 404
