"""The pages of each port, and pages of other origins, in a real browser that reaches nothing but this machine."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from gateway.fakes import FakePod, answer, running
from gateway.handlers import echo, handling
from marway.registry import Registry
from marway.wire.envelope import ROWS_CONTENT_TYPE
from support.browser import Seen, browser, keep, needs_browser, new_page
from support.ports import Port
from support.proxy import NGINX, proxied

pytestmark = [needs_browser, pytest.mark.timeout(300)]

TOKEN = "one-token.of~ours"
rows = handling(echo)
ASKER = """<!doctype html><title>another origin</title><script>
const told = async (answer) => [answer.status, await answer.text(), answer.headers.get("x-model-version")];
const ask = (url, more) => fetch(url, {method: "POST", body: JSON.stringify("tell me a joke"), ...more}).then(told)
  .catch((error) => [0, String(error), null]);
</script>"""


@pytest.fixture
async def opened() -> AsyncIterator[tuple[Page, Seen]]:
    async with browser() as started, new_page(started) as opened:
        yield opened


@pytest.fixture
def page(opened: tuple[Page, Seen]) -> Page:
    return opened[0]


@pytest.fixture
def seen(opened: tuple[Page, Seen]) -> Seen:
    return opened[1]


@pytest.fixture
def tokens(tmp_path: Path) -> Path:
    file = tmp_path / "tokens"
    file.write_text(f"{TOKEN}\n")
    file.chmod(0o600)
    return file


@pytest.fixture
async def pod() -> AsyncIterator[FakePod]:
    made = FakePod("a")
    await made.start()
    yield made
    await made.stop()


async def authorize(page: Page, token: str = TOKEN) -> None:
    """Give the API page a token, as a person does."""
    await page.click(".btn.authorize")
    await page.fill(".auth-container input", token)
    await page.click(".auth-btn-wrapper button.authorize")
    await page.click(".auth-btn-wrapper .btn-done")


async def tried(page: Page, operation: str) -> tuple[int, str]:
    """Send an operation's request as the API page has it, and return the status and the body that it shows."""
    block = f"#operations-{operation}"
    if not await page.is_visible(f"{block} .btn.execute"):
        await page.dispatch_event(f"{block} .opblock-summary-control", "click")
    await page.wait_for_selector(f"{block} .btn.execute")
    proposed = f"{block} tr[data-param-in=path] input, {block} textarea"
    await page.wait_for_function(f"() => [...document.querySelectorAll('{proposed}')].every((each) => each.value)")
    # A click before Swagger UI has resolved the operation leaves it executing for ever; no person is so quick.
    await page.wait_for_function(
        """(block) => {
          const path = document.querySelector(block + " .opblock-summary-path").dataset.path;
          const method = document.querySelector(block + " .opblock-summary-method").innerText.toLowerCase();
          return ui.specSelectors.specResolvedSubtree(["paths", path, method]);
        }""",
        arg=block,
    )
    await page.dispatch_event(f"{block} .btn.execute", "click")
    live = f"{block} .live-responses-table .response"
    status = await page.inner_text(f"{live} .response-col_status")
    body = await page.locator(f"{live} .response-col_description pre").first.inner_text()
    await page.dispatch_event(f"{block} .btn-clear", "click")
    await expect(page.locator(live)).to_have_count(0)
    return int(status.split()[0]), body


async def test_pages_need_no_other_host(page: Page, seen: Seen, port: Port, tmp_path: Path) -> None:
    """The pages of each port show all they have with nothing from elsewhere, and keep to their own policies."""
    await page.set_viewport_size({"width": 900, "height": 520})
    await page.goto(f"{port.url}/")
    await expect(page.locator("a[href$=docs]")).to_be_visible()
    if port.name == "gateway":
        await keep(page, "front-page.png", directory=tmp_path)
    await page.set_viewport_size({"width": 1100, "height": 900})
    await page.click("a[href$=docs]")
    await page.wait_for_function("() => document.querySelectorAll('.opblock').length > 5")
    shown = await page.inner_text("body")
    assert all(path in shown.replace("\u200b", "") for path in ("/healthz", "/models"))
    if port.name == "gateway":
        await keep(page, "api-page.png", directory=tmp_path)
    assert {urlsplit(url).netloc for url in seen.asked if not url.startswith("data:")} == {urlsplit(port.url).netloc}
    assert seen.complaints == []


@pytest.mark.extended  # test_trying_a_model sends the same route JSON; gateway/http/test_bodies.py has the kinds
async def test_trying_with_text_and_a_file(
    page: Page, seen: Seen, pod: FakePod, registry: Registry, tokens: Path
) -> None:
    """The API page sends text and pictures too, behind tokens; and shows the gateway's own ports and models."""
    picture = Path(__file__).parents[2] / "examples/digits/samples/7.png"
    block = "#operations-predict-predict"
    async with running(pod, registry=registry, predict_tokens_file=tokens) as gateway:
        await page.goto(f"{gateway.addresses.gateway}/docs")
        await authorize(page)
        assert (await tried(page, "predict-predict"))[0] == 200
        await page.select_option(f"{block} .body-param-content-type select", "text/plain")
        assert await tried(page, "predict-predict") == (200, "wake me at seven")
        await page.select_option(f"{block} .body-param-content-type select", "image/png")
        await page.set_input_files(f"{block} input[type=file]", picture)
        await page.dispatch_event(f"{block} .btn.execute", "click")
        await expect(page.locator(f"{block} .live-responses-table .response-col_status").last).to_contain_text("200")
        assert json.loads((await tried(page, "models-list_models"))[1])["models"][0]["name"] == "intent"
    kinds = [each.headers["content-type"] for each in pod.requests]
    assert kinds == ["application/json", "text/plain", "image/png"]
    assert [each.body for each in pod.requests[1:]] == [b"wake me at seven", picture.read_bytes()]
    assert seen.complaints == []


async def either(pod: FakePod, request: web.Request) -> web.StreamResponse:
    """Give back what came, whole or row by row."""
    return await (rows if request.headers.get("content-type") == ROWS_CONTENT_TYPE else answer)(pod, request)


@pytest.mark.extended  # test_pages.py and gateway/access/test_cors.py, without a browser
async def test_trying_a_model(page: Page, seen: Seen, pod: FakePod, registry: Registry) -> None:
    """What the API page proposes for a prediction can be sent as it stands, over each protocol."""
    pod.behave = either
    text = "wake me at seven"
    async with running(pod, registry=registry) as gateway:
        await page.goto(f"{gateway.addresses.gateway}/docs")
        status, body = await tried(page, "predict-predict")
        assert (status, json.loads(body)) == (200, {"text": text})
        status, body = await tried(page, "v1-v1_predict")
        assert (status, json.loads(body)["predictions"][0]) == (200, text)
        status, body = await tried(page, "open_inference-infer")
        assert (status, json.loads(body)["outputs"][0]["data"][0]) == (200, text)
        assert (await tried(page, "torchserve-torchserve_predict_post"))[0] == 200
    assert seen.complaints == []


@pytest.mark.extended  # test_pages.py and gateway/access/test_cors.py, without a browser
async def test_with_tokens(page: Page, pod: FakePod, registry: Registry, tokens: Path) -> None:
    """The API page loads without a token, asks for one, and sends it, on the public port and on the admin port."""
    async with running(pod, registry=registry, admin_tokens_file=tokens, predict_tokens_file=tokens) as gateway:
        for url, operation in (
            (gateway.addresses.gateway, "predict-predict"),
            (gateway.addresses.admin, "pods-list_pods"),
        ):
            await page.goto(f"{url}/docs")
            status, body = await tried(page, operation)
            assert (status, json.loads(body)["code"]) == (401, "unauthenticated")
            await authorize(page, "wrong")
            assert (await tried(page, operation))[0] == 401
            await page.goto("about:blank")  # a token is kept no longer than its page
            await page.goto(f"{url}/docs")
            await authorize(page)
            assert (await tried(page, operation))[0] == 200
    assert "authorization" not in pod.requests[-1].headers


@pytest.mark.extended  # test_pages.py and gateway/access/test_cors.py, without a browser
@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_behind_a_prefix(page: Page, seen: Seen, gateway_port: Port, tmp_path: Path) -> None:
    """Behind a proxy that puts a prefix before the paths, the pages work as they are, with nothing to set."""
    async with proxied(gateway_port, tmp_path, prefix="/ml/v2/") as proxy:
        await page.goto(f"{proxy.url}/ml/v2/")
        await page.click("a[href$=docs]")
        assert (await tried(page, "predict-predict"))[0] == 200
        paths = {urlsplit(url).path for url in seen.asked if not url.startswith("data:")}
    assert paths >= {"/ml/v2/docs", "/ml/v2/openapi.json", "/ml/v2/predict/intent"}
    assert all(path.startswith("/ml/v2/") for path in paths)
    assert seen.complaints == []


@contextlib.asynccontextmanager
async def other_origin() -> AsyncIterator[str]:
    """Serve a page that asks, on a port of its own; give its origin."""

    async def asker(_: web.Request) -> web.Response:
        return web.Response(text=ASKER, content_type="text/html")

    app = web.Application()
    app.router.add_get("/", asker)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.extended  # test_pages.py and gateway/access/test_cors.py, without a browser
async def test_pages_of_another_origin(page: Page, pod: FakePod, registry: Registry, tokens: Path) -> None:
    """A page of an origin that is named reads answers, their headers and errors, and may send a token; others none."""
    as_json = {"content-type": "application/json", "authorization": f"Bearer {TOKEN}", "x-own": "seen"}
    async with other_origin() as named, other_origin() as unnamed:
        flags = {"cors_origins": named, "predict_tokens_file": tokens, "body_timeout_s": 1}
        async with running(pod, registry=registry, **flags) as gateway:
            url = f"{gateway.addresses.gateway}/predict/intent"

            async def ask(url: str, **more: object) -> list[object]:
                answer: list[object] = await page.evaluate(f"ask({json.dumps(url)}, {json.dumps(more)})")
                return answer

            for origin in (named, unnamed):
                await page.goto(origin)
                await page.wait_for_function("() => typeof ask === 'function'")
                got = [
                    await ask(url, headers=as_json),
                    await ask(url),
                    await ask(url, headers=as_json | {"authorization": "Bearer wrong"}),
                    await ask(url.replace("intent", "nothing"), headers=as_json),
                    await ask(url, headers=as_json, credentials="include"),
                    await ask(f"{gateway.addresses.admin}/pods/a/drain"),
                ]
                if origin == named:
                    assert got[0] == [200, '"tell me a joke"', "1.0"]
                    assert [each[0] for each in got] == [200, 401, 401, 404, 0, 0]
                    assert pod.requests[-1].headers["x-own"] == "seen"
                else:
                    assert [each[0] for each in got] == [0] * len(got)
    assert not pod.draining
    assert len(pod.requests) == 1  # the browser asks before each, and sends none with credentials, or for others
