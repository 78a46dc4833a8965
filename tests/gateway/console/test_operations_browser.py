"""The pages of pods, rollouts, shadow copies, events and settings in a real browser.

Extended, as a browser takes seconds; `test_operations.py` looks at what they send.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from gateway.console.scene import Scene, scene
from marway.objects import DirectoryStore
from marway.records import utc_now
from marway.registry import Registry
from marway_observations.events.event import RELEASED, Event
from marway_observations.events.log import EventLog
from support.browser import accessible, browser, keep, needs_browser, new_page, reached_by_keyboard

pytestmark = [
    needs_browser,
    pytest.mark.extended,
    pytest.mark.timeout(300),
    pytest.mark.asyncio(loop_scope="module"),
]
PAGES = {
    "pods": "console/pods",
    "rollouts": "console/rollouts",
    "rollout": "console/rollouts/intent/PROD",
    "shadow": "console/shadow/sentiment/PROD",
    "events": "console/events",
    "settings": "console/settings",
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shown(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    scratch: Path = tmp_path_factory.mktemp("scene")
    registry = Registry(DirectoryStore(scratch / "registry"))
    async with scene(registry, scratch, points=36) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def started() -> AsyncIterator[Browser]:
    async with browser() as one:
        yield one


async def opened(page: Page, shown: Scene, path: str) -> None:
    await page.goto(f"{shown.gateway.addresses.admin}/{path}", wait_until="load")
    await expect(page.locator("h1")).to_be_visible()


@pytest.mark.parametrize("look", ["light", "dark"])
async def test_accessible_in_every_look(shown: Scene, started: Browser, look: str, tmp_path: Path) -> None:
    """Every page passes axe, complains of nothing, and is no wider than its window: light and large, dark and small."""
    options = {"color_scheme": "dark", "width": 360} if look == "dark" else {"width": 1100}
    async with new_page(started, **options) as (page, seen):
        for name, path in PAGES.items():
            await opened(page, shown, path)
            await accessible(page)
            assert seen.complaints == [], path
            if look == "light" and name != "rollouts":
                await keep(page, f"console-{name}.png", full_page=name != "settings", directory=tmp_path)


async def test_steered_by_keyboard_and_followed(shown: Scene, started: Browser) -> None:
    """A pod is drained by keyboard alone, after a dialog said what will happen; what is open and focused stays so."""
    async with new_page(started) as (page, seen):
        await opened(page, shown, "console/pods")
        load = page.locator("#pod-pod-0 details.more")
        await load.locator("summary").click()
        await load.get_by_label("Model").fill("intent")
        await page.locator("h1").click()
        await reached_by_keyboard(page, "[aria-label='Drain pod-1']")
        await page.keyboard.press("Enter")
        dialog = page.get_by_role("dialog")
        await expect(dialog).to_contain_text("pod-1 takes no more requests, of this gateway or any other")
        await page.keyboard.press("Escape")
        await expect(dialog).to_be_hidden()
        assert not shown.pods[1].draining
        await page.keyboard.press("Enter")
        await dialog.get_by_role("button", name="Drain").focus()
        await page.keyboard.press("Enter")
        await expect(page.locator("#pod-pod-1")).to_contain_text("draining")
        assert shown.pods[1].draining
        shown.pods[1].draining = False  # somebody else, over another gateway
        shown.pods[1].tell()
        await expect(page.locator("#pod-pod-1")).to_contain_text("takes requests")
        await expect(load.get_by_label("Model")).to_have_value("intent")
        await expect(load).to_have_attribute("open", "")
        assert seen.complaints == []


async def test_rollout_is_paused_and_resumed(shown: Scene, started: Browser) -> None:
    """A rollout's buttons do what they say, and the page shows it."""
    async with new_page(started) as (page, seen):
        await opened(page, shown, "console/rollouts/intent/PROD")
        for press, then in (("Pause", "Resume"), ("Resume", "Pause")):
            await page.get_by_role("button", name=press, exact=True).click()
            await page.get_by_role("dialog").get_by_role("button", name=press).click()
            await expect(page.get_by_role("button", name=then, exact=True)).to_be_visible()
        await expect(page.locator("ol.timeline")).to_contain_text("resume")
        assert shown.registry.state("intent").traffic["PROD"].status == "running"
        assert seen.complaints == []


async def test_events_come_by_themselves(shown: Scene, started: Browser) -> None:
    """An event that is raised while the page is open is on it soon, and one that stays keeps its row."""
    async with new_page(started) as (page, _):
        await opened(page, shown, "console/events")
        rows = page.locator("tbody tr")
        before = await rows.count()
        event = Event(id="intent-99", type=RELEASED, subject="intent", time=utc_now(), data={"version": "1.2"})
        await asyncio.to_thread(EventLog(shown.registry.store).raise_, event)
        await expect(rows).to_have_count(before + 1)
        await expect(rows.first).to_contain_text("1.2")


async def test_says_when_it_follows_nothing(shown: Scene, started: Browser) -> None:
    """A page that is cut off says of when what it shows is, and follows again by itself."""
    async with new_page(started) as (page, _):
        await page.route("**/console/live/**", lambda route: route.fulfill(status=503, body="no"))
        await opened(page, shown, "console/pods")
        trouble = page.locator("#live-trouble")
        await expect(trouble).to_contain_text("This page does not follow what happens just now")
        await page.unroute("**/console/live/**")
        await expect(trouble).to_be_hidden()
