"""The console's frame and its pages of models, as a browser is given them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from gateway.admin_pod import AdminPod
from gateway.console.conftest import FAILED
from gateway.fakes import FakePod, Running, running
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_gateway.console.measured import MEASURED
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.recent import Recent, RecentRequests
from support.registry import publish

PAGE = {"accept": "text/html,*/*;q=0.8"}


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Running]:
    tmp_path = tmp_path_factory.mktemp("pages")
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish(registry, tmp_path, "intent", "1.0")
    publish(registry, tmp_path, "intent", "1.1", label=None)
    publish(registry, tmp_path, "digits", "1", label="STG")
    pod = AdminPod("pod-0", registry=registry, lines=(FAILED,))
    await pod.start()
    try:
        async with running(pod, registry=registry, duties=False, state_ttl_s=0.1) as served:
            while not (await served.admin.get("/pods")).json()[0]["status"]:
                pass
            yield served
    finally:
        await pod.stop()


async def shown(gateway: Running, path: str, status: int = 200) -> str:
    answer = await gateway.admin.get(path, headers=PAGE)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<script(?![^>]*src=)|\son\w+=|style=", answer.text)  # which the policy would stop
    return answer.text


async def test_models_and_one_of_them(gateway: Running) -> None:
    """The list has labels, versions, pods and requests; a page has versions, its history, and what moves labels."""
    await gateway.admin.post("/models/intent/versions/1.0/load")
    for _ in range(2):
        await gateway.predict()
    first = await gateway.admin.get("/", headers=PAGE)
    assert (first.status_code, first.headers["location"], first.headers["vary"]) == (303, "console/models", "Accept")
    text = await shown(gateway, "/console/models")
    assert text.index(">digits<") < text.index(">intent<")
    assert "Pods that take requests: 1 of 1" in text
    assert 'class="badge good">1 of 1<' in text
    assert ">2</td>" in text
    assert 'href="../console/models/intent"' in text
    assert ">digits<" not in await shown(gateway, "/console/models?contains=NTE")
    assert (await gateway.admin.get("/models?contains=NTE")).json()["models"][0]["name"] == "intent"
    await gateway.admin.put("/models/intent/labels/PROD", json={"version": "1.1", "note": "<b>shorter</b>"})
    one = await shown(gateway, "/console/models/intent")
    assert "moved from <b>1.0</b> to <b>1.1</b>" in re.sub(r"\s+", " ", one)
    assert "&lt;b&gt;shorter&lt;/b&gt;" in one
    assert 'data-path="models/intent/labels/PROD/rollback"' in one
    assert 'name="if_currently" value="1.1"' in one


async def test_errors_are_pages(gateway: Running) -> None:
    """What cannot be shown says why, as a page to who asked for one and as a problem to programs."""
    page = await shown(gateway, "/console/models/itent", 404)
    assert "there is no model &#39;itent&#39;" in page
    answer = await gateway.admin.get("/console/models/itent")
    assert (answer.status_code, answer.json()["code"]) == (404, "model_not_found")


async def test_what_handlers_raised(gateway: Running) -> None:
    """The log of a version on all pods, whole or of one request; a pod that cannot tell is named."""
    log = (await gateway.admin.get("/models/digits/versions/STG/log?request=r-failed")).json()
    assert (log["version"], log["lines"][0]["pod"], log["lines"][0]["traceback"][:9]) == ("1", "pod-0", "Traceback")
    assert log["unanswered"] == {}
    assert (await gateway.admin.get("/models/digits/versions/STG/log?request=other")).json()["lines"] == []
    text = (await gateway.admin.get("/console/models/intent/versions/1.0/traceback?request=r-failed")).text
    assert "in preprocess" in text


async def test_files_are_kept_for_ever(gateway: Running) -> None:
    """Scripts and styles have an address by content, are not sent twice, and are nobody else's."""
    text = await shown(gateway, "/console/models")
    for path in re.findall(r'(?:src|href)="\.\./(console/static/[^"]+)"', text):
        answer = await gateway.admin.get(f"/{path}")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        again = await gateway.admin.get(f"/{path}", headers={"if-none-match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
    old = await gateway.admin.get("/console/static/console.js?v=another")
    assert old.headers["cache-control"] == "no-cache"
    assert (await gateway.admin.get("/console/static/..%2Fframe.py")).status_code == 404


async def test_without_a_console(registry: Registry) -> None:
    """With `console` off, `/` says what the port is, to people as well, and there is nothing below `/console`."""
    async with running(FakePod("a").address, registry=registry, duties=False, console=False) as served:
        assert "Moves labels" in (await served.admin.get("/", headers=PAGE)).text
        assert (await served.admin.get("/console/models", headers=PAGE)).status_code == 404
        assert "console" not in (await served.admin.get("/")).text


async def test_figures_say_how_they_are_measured() -> None:
    """Each figure that a page has a question mark at is explained."""
    templates = Path(__file__).parents[3] / "gateway/marway_gateway/console/templates"
    asked = {key for file in templates.glob("*.html") for key in re.findall(r'ui\.measured\("(\w+)"', file.read_text())}
    assert asked <= set(MEASURED)


async def test_the_last_minute_is_counted() -> None:
    """Predictions of a version in the last minute, and those that were not the caller's fault."""
    now, durations = 0.0, {}
    recent = RecentRequests(durations, lambda: now)
    histogram = Metrics().request_duration

    def ended(outcome: str, times: int) -> None:
        labels = ("intent", "1.0", "native", outcome)
        durations[labels] = histogram.labels(*labels)
        for _ in range(times):
            durations[labels].observe(0.01)

    ended("ok", 3)
    assert recent.counts() == {("intent", "1.0"): Recent(3, 0)}
    for second in range(5, 70, 5):
        now = float(second)
        recent.look()
    assert recent.counts() == {}
    ended("model_error", 1)
    ended("client_error", 1)
    assert recent.counts() == {("intent", "1.0"): Recent(2, 1)}
