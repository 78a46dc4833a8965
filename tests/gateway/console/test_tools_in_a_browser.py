"""One version, its differences, trying it, and its requests, in a real browser: over one gateway with one pod.

What the pages say, and what their routes take, `test_versions`, `test_trying` and `test_try_forms` show in a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from gateway.admin_pod import AdminPod
from gateway.fakes import Running
from support.browser import Seen, accessible, browser, keep, needs_browser, new_page, reached_by_keyboard
from support.console_models import console_gateway, picture

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    needs_browser,
    pytest.mark.extended,  # a browser; see above for what covers it
    pytest.mark.timeout(300),
]

Opened = tuple[Running, AdminPod, Browser]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def opened(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Opened]:
    directory = tmp_path_factory.mktemp("console")
    async with console_gateway(directory) as (gateway, pod, _), browser() as started:
        yield gateway, pod, started


async def predict(page: Page) -> None:
    await page.click("text=Predict >> nth=0")
    await expect(page.locator("#try output")).to_have_text("Answered.")


async def test_every_kind_of_input_and_answer(opened: Opened, tmp_path: Path) -> None:
    """Text, JSON, a picture and a sound of a golden example, a file of one's own; answers by their content type."""
    gateway, pod, started = opened
    url = gateway.addresses.admin
    async with new_page(started) as (page, seen):
        await page.goto(f"{url}/")
        await page.click("[aria-label='Try intent PROD']")
        await predict(page)
        await expect(page.locator("#body pre")).to_have_text('{\n  "label": "alarm",\n  "score": 0.93\n}')
        await expect(page.locator("#status")).to_have_text("200 OK")
        await expect(page.locator("#by")).to_have_text("intent 1.0")
        await expect(page.locator("#timing")).to_contain_text("total")
        assert (pod.requests[-1].body, pod.requests[-1].headers["content-type"]) == (
            *(b"wake me at seven", "text/plain; charset=utf-8"),
        )
        await keep(page, "console-try.png", directory=tmp_path)
        await page.select_option("#example", "2")
        await predict(page)
        assert pod.requests[-1].headers["content-type"] == "application/json"
        await page.fill("#json", "{")
        await page.click("text=Predict >> nth=0")
        await expect(page.locator("#try output")).to_contain_text("It is no JSON")

        await page.goto(f"{url}/console/models/digits/try/PROD")
        await expect(page.locator("#preview img")).to_be_visible()
        await predict(page)
        assert (pod.requests[-1].body, pod.requests[-1].headers["content-type"]) == (picture(), "image/png")
        await page.check("input[value=tensors]")
        await page.fill("#tensor-1", "[[1, 2], [3]]")
        await page.click("text=Predict >> nth=0")
        await expect(page.locator("#try output")).to_have_text("pixels: its lists are not equally long")

        await page.goto(f"{url}/console/models/painter/try/PROD")
        await predict(page)
        assert (
            await page.locator("#body img").evaluate("async (each) => (await each.decode(), each.naturalWidth)") == 28
        )
        await page.goto(f"{url}/console/models/speaker/try/PROD")
        await predict(page)
        assert await page.locator("#body audio").count() == 1
        await page.goto(f"{url}/console/models/listener/try/PROD")
        await expect(page.locator("#preview audio")).to_be_visible()
        file = tmp_path / "mine.bin"
        file.write_bytes(b"\x00\x01")
        await page.set_input_files("#file", file)
        await predict(page)
        assert (pod.requests[-1].body, pod.requests[-1].headers["content-type"]) == (
            *(b"\x00\x01", "application/octet-stream"),
        )
        assert seen.complaints == []


async def test_what_is_hostile_slow_or_fails(opened: Opened) -> None:
    """Markup in an answer is text; what runs is stopped, and its pod's work with it; pieces show as they come."""
    gateway, pod, started = opened
    url = gateway.addresses.admin
    async with new_page(started) as (page, seen):
        await page.goto(f"{url}/console/models/intent/try/STG")
        await page.fill("#text", "<script>")
        await predict(page)
        await expect(page.locator("#body pre")).to_have_text("<script>document.title = 'taken'</script>")
        assert await page.title() == "Try intent STG · Marway"
        await page.fill("#text", "slow")
        await page.click("text=Predict >> nth=0")
        await page.click("#stop")
        await expect(page.locator("#try output")).to_contain_text("Stopped")
        async with asyncio.timeout(30):
            while not pod.cancelled:
                await asyncio.sleep(0.01)
        await page.goto(f"{url}/console/models/writer/try/PROD")
        await predict(page)
        await expect(page.locator("#body pre")).to_have_text("Once upon a time.")
        await expect(page.locator("#round-trip")).to_contain_text("pieces, the first after")
        assert seen.complaints == []


async def test_from_an_answer_to_its_request(opened: Opened, tmp_path: Path) -> None:
    """The answer's prediction id leads to what was kept of it, and the search finds it by what one remembers."""
    gateway, _, started = opened
    url = gateway.addresses.admin
    async with new_page(started) as (page, seen):
        await page.goto(f"{url}/console/models/intent/try/PROD")
        await predict(page)
        prediction = await page.locator("#prediction").text_content()
        said = {"prediction_id": prediction, "correct": False, "truth": "timer", "source": "app"}
        assert (await gateway.client.post("/feedback", json=said)).status_code == 202
        async with asyncio.timeout(30):
            while (await gateway.admin.get(f"/observations/{prediction}")).status_code == 404:
                await asyncio.sleep(0.2)
        await page.click("#prediction")
        await expect(page.locator("h1")).to_have_text(str(prediction))
        await expect(page.locator("main")).to_contain_text("moved")
        await expect(page.locator("main")).to_contain_text("wake me at seven")
        await expect(page.locator("main")).to_contain_text("by app")
        await keep(page, "console-request.png", directory=tmp_path)
        await page.goto(f"{url}/console/requests")
        await page.fill("#model", "intent")
        await page.click("text=Search")
        row = page.locator("#found tr", has_text=str(prediction))
        await expect(row).to_contain_text("wrong")
        await keep(page, "console-requests.png", directory=tmp_path)
        await page.fill("#model", "nobody")
        await page.click("text=Search")
        await expect(page.locator("#found")).to_contain_text("there is no model 'nobody'")
        assert seen.complaints == []


async def test_a_pod_compares(opened: Opened, tmp_path: Path) -> None:
    """From a version to how it differs from another, where a pod is asked for answers and latency."""
    gateway, pod, started = opened
    async with new_page(started) as (page, seen):
        await page.goto(f"{gateway.addresses.admin}/console/models/intent/versions/1.1")
        await keep(page, "console-version.png", directory=tmp_path)
        await page.click("text=Show differences")
        await page.click("text=Ask both on a pod")
        await expect(page.locator("#compared")).to_contain_text("score is now confidence")
        await expect(page.locator("[data-fact=base_p50]")).to_have_text("3.4 ms")
        assert pod.compared[-1].endswith("/compare?base=1.0")
        await keep(page, "console-differences.png", directory=tmp_path)
        assert seen.complaints == []


Act = Callable[[Page], Coroutine[Any, Any, object]]


async def test_accessible_everywhere(opened: Opened) -> None:
    """No page has a violation of WCAG 2.2 AA, light, dark or 360 px wide, nor is wider than its window."""
    gateway, _, started = opened
    paths: dict[str, Act | None] = {
        "console/models/intent/versions/1.0": None,
        "console/models/digits/versions/PROD": None,
        "console/models/intent/versions/1.1/differences?base=1.0": None,
        "console/models/intent/try/PROD": predict,
        "console/models/digits/try/PROD": lambda page: page.check("input[value=tensors]"),
        "console/requests?whole=true": None,
    }
    for options in ({}, {"color_scheme": "dark"}, {"width": 360}):
        async with new_page(started, **options) as (page, _):
            for path, act in paths.items():
                await page.goto(f"{gateway.addresses.admin}/{path}")
                if act is not None:
                    await act(page)
                await accessible(page)


async def test_with_the_keyboard_alone(opened: Opened) -> None:
    """A prediction is asked for without a mouse, and the answer is told to who does not see it."""
    gateway, pod, started = opened
    async with new_page(started) as (page, seen):
        await page.goto(f"{gateway.addresses.admin}/console/models/intent/try/PROD")
        await reached_by_keyboard(page, "#text")
        await page.keyboard.press("Control+A")
        await page.keyboard.type("typed")
        await reached_by_keyboard(page, "#try button.primary")
        await page.keyboard.press("Enter")
        await expect(page.locator("#try output[role=status]")).to_have_text("Answered.")
        assert pod.requests[-1].body == b"typed"
        await weigh(page, seen, gateway)


async def weigh(page: Page, seen: Seen, gateway: Running) -> None:
    """The page with its scripts and styles stays below 150 KB."""
    paths = {each.removeprefix(gateway.addresses.admin) for each in seen.asked if "/try/intent" not in each}
    sizes = [len((await gateway.admin.get(path, headers={"accept": "text/html"})).content) for path in sorted(paths)]
    assert sum(sizes) < 150_000, dict(zip(sorted(paths), sizes, strict=True))
