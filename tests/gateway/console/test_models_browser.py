"""The console's pages of models in a real browser: what they show, what they change, and that all can use them."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, expect

from gateway.console.conftest import Shown
from gateway.fakes import running
from support.browser import Seen, accessible, keep, needs_browser, new_page, reached_by_keyboard
from support.ports import Port
from support.proxy import NGINX, proxied

pytestmark = [
    needs_browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.extended,  # test_pages.py and test_login.py, without a browser
]

MODEL = "console/models/intent"
PAGES = ("", MODEL, f"{MODEL}/versions/1.0", "console/models/nothing", "console/requests")
"""Beside those that the frame leads to."""
BYTES_MAX = 150 * 1024
PAINT_MAX_MS = 3000
"""Three times what docs/console.md promises of a machine that does nothing else."""


async def figures(page: Page) -> None:
    """Wait until a model's page has what was kept of predictions."""
    await expect(page.locator("#observed figure")).to_have_count(3)


async def test_pictures_of_models(shown: Shown, opened: tuple[Page, Seen], tmp_path: Path) -> None:
    """The list and a model's page show what there is, with nothing from another host, as docs/console.md has them."""
    page, seen = opened
    await page.set_viewport_size({"width": 1100, "height": 420})
    await page.goto(f"{shown.console}/")
    await keep(page, "console-models.png", directory=tmp_path)
    await page.click("a[href$='models/intent']")
    await figures(page)
    await page.set_viewport_size({"width": 1100, "height": 760})
    await keep(page, "console-model.png", directory=tmp_path)
    await page.locator("#figures").scroll_into_view_if_needed()
    await page.evaluate("document.getElementById('figures').scrollIntoView()")
    await keep(page, "console-model-figures.png", directory=tmp_path)
    await page.click("text=What the handler wrote and raised")
    await expect(page.locator(".log pre")).to_contain_text("KeyError: 'text'")
    assert {urlsplit(url).netloc for url in seen.asked} == {urlsplit(shown.console).netloc}
    assert seen.complaints == []


async def test_labels_are_moved_and_rolled_back(shown: Shown, opened: tuple[Page, Seen]) -> None:
    """A dialog says what will happen; cancelled, nothing does. A refusal is shown beside its button."""
    page, seen = opened
    await page.goto(f"{shown.console}/{MODEL}")
    await page.select_option("form.move select", "1.1")
    await page.fill("form.move input[name=note]", "better on short sentences")
    await page.click("form.move button")
    dialog = page.locator("dialog#confirm")
    await expect(dialog).to_contain_text("PROD of intent moves from 1.0 to 1.1.")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    assert shown.registry.state("intent").labels["PROD"] == "1.0"
    await page.click("form.move button")
    await dialog.locator("button.primary").click()
    await expect(page.locator("ol.timeline li").first).to_contain_text("better on short sentences")
    assert shown.registry.state("intent").labels["PROD"] == "1.1"
    await page.click("text=Roll back PROD")
    await dialog.locator("button.danger").click()
    await expect(page.locator("ol.timeline li").first).to_contain_text("rolled back from 1.1 to 1.0")
    assert shown.registry.state("intent").labels["PROD"] == "1.0"
    await page.click("text=Roll back PROD")
    await dialog.locator("button.danger").click()
    await expect(page.locator("output.outcome.bad")).to_contain_text("nothing to go back to")
    assert all("409" in each for each in seen.complaints)  # the browser itself says that of the last


@pytest.mark.parametrize(("scheme", "width"), [("light", 1100), ("dark", 360)], ids=lambda each: str(each))
async def test_all_can_use_every_page(browser_of_module: Browser, shown: Shown, scheme: str, width: int) -> None:
    """axe-core finds nothing on any page, in light and dark, wide and as narrow as a phone, where nothing scrolls."""
    async with new_page(browser_of_module, width=width, height=800, color_scheme=scheme) as (page, _):
        await page.goto(f"{shown.console}/")
        listed = await page.eval_on_selector_all("header nav a", "each => each.map((link) => link.href)")
        for url in dict.fromkeys([*listed, *(f"{shown.console}/{path}" for path in PAGES)]):
            await page.goto(url)
            if url.endswith(MODEL):
                await figures(page)
                await page.click("details.measured summary >> nth=0")
            await accessible(page)


async def test_with_the_keyboard_alone(shown: Shown, opened: tuple[Page, Seen]) -> None:
    """The first Tab offers to skip the frame; a model is opened, explained and changed without a pointer."""
    page, _ = opened
    await page.goto(f"{shown.console}/")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.matches('a.skip')")
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    await reached_by_keyboard(page, "a[href$='models/intent']")
    await page.keyboard.press("Enter")
    await page.wait_for_url(f"**/{MODEL}")
    await reached_by_keyboard(page, ".card details.measured summary")
    await page.keyboard.press("Enter")
    await expect(page.locator("details.measured[open] .how")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(page.locator("details.measured[open]")).to_have_count(0)
    await reached_by_keyboard(page, "form.move select")
    await page.keyboard.type("2.0")
    await reached_by_keyboard(page, "form.move button")
    await page.keyboard.press("Enter")
    await expect(page.locator("dialog#confirm")).to_contain_text("moves from 1.0 to 2.0")
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.activeElement.matches('form.move button')")


async def test_budgets(browser_of_module: Browser, shown: Shown) -> None:
    """A page with all it is made of is at most 150 KB for a browser that was never here, and is soon painted."""
    for path in ("", MODEL):
        async with new_page(browser_of_module) as (page, _):
            sizes: list[int] = []

            async def add(request, sizes: list[int] = sizes) -> None:
                found = await request.sizes()
                sizes.append(found["responseBodySize"] + found["responseHeadersSize"])

            page.on("requestfinished", add)
            await page.goto(f"{shown.console}/{path}")
            if path:
                await figures(page)
            paint = await page.evaluate(
                """new Promise((done) => new PerformanceObserver((list) => done(list.getEntries()[0].startTime))
                .observe({type: "paint", buffered: true}))"""
            )
            assert len(sizes) >= 5
            assert sum(sizes) <= BYTES_MAX
            assert paint <= PAINT_MAX_MS
            print(f"/{path}: {sum(sizes)} bytes in {len(sizes)} requests, first paint after {paint:.0f} ms")


async def test_signing_in(browser_of_module: Browser, shown: Shown, tmp_path: Path) -> None:
    """A form leads on to the page that was asked for, of this port alone; a wrong token is told, signing out works."""
    tokens = tmp_path / "tokens"
    tokens.write_text("ana: a-token+of/ours==\n")
    tokens.chmod(0o600)
    async with (
        running(shown.pod, registry=shown.registry, admin_tokens_file=tokens, duties=False) as gateway,
        new_page(browser_of_module, height=420) as (page, seen),
    ):
        admin = gateway.addresses.admin
        await page.goto(f"{admin}/{MODEL}?versions=all")
        await keep(page, "console-login.png", directory=tmp_path)
        await accessible(page)
        await page.fill("#token", "wrong")
        await page.keyboard.press("Enter")
        await expect(page.locator("output.outcome.bad")).to_contain_text("is not known here")
        await page.fill("#token", "a-token+of/ours==")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{admin}/{MODEL}?versions=all")
        await expect(page.locator(".who")).to_contain_text("ana")
        await accessible(page)
        assert await page.evaluate("document.cookie") == ""
        await page.click("[data-sign-out]")
        await page.wait_for_url("**/console/login")
        await page.goto(f"{admin}/console/login?next=https://evil.example/")
        await page.fill("#token", "a-token+of/ours==")
        await page.keyboard.press("Enter")
        await page.wait_for_url(f"{admin}/console/models")
        assert all("401" in each for each in seen.complaints)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed")
async def test_behind_a_prefix(browser_of_module: Browser, shown: Shown, tmp_path: Path) -> None:
    """Behind a proxy that puts a prefix before the paths, pages, what they fetch and what they change stay below it."""
    async with (
        proxied(Port("admin", shown.console, "/console/models"), tmp_path, prefix="/ml/v2/") as proxy,
        new_page(browser_of_module) as (page, seen),
    ):
        await page.goto(f"{proxy.url}/ml/v2/")
        await page.click("a[href$='models/intent']")
        await figures(page)
        await page.click("details.more summary")
        await page.fill("#new-label", "QA")
        await page.click("details.more button")
        await page.click("dialog#confirm button.primary")
        await expect(page.locator("ol.timeline li").first).to_contain_text("QA")
        assert all(urlsplit(url).path.startswith("/ml/v2/") for url in seen.asked)
        assert seen.complaints == []
