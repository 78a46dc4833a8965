"""The pages of pods, rollouts, shadow copies, events and settings in a real browser.

Extended, as a browser takes seconds; `test_operations.py` looks at what they send.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page, expect

from gateway.console.scene import Scene, scene
from marway.objects import DirectoryStore
from marway.registry import Registry
from support.browser import accessible, browser, keep, needs_browser, new_page

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


@pytest.mark.parametrize("look", ["light", "dark", "small"])
async def test_accessible_in_every_look(shown: Scene, started: Browser, look: str, tmp_path: Path) -> None:
    """Every page passes axe, complains of nothing, and is no wider than its window: light, dark, 360 pixels wide."""
    options = {"color_scheme": "dark"} if look == "dark" else {}
    async with new_page(started, width=360 if look == "small" else 1100, **options) as (page, seen):
        for name, path in PAGES.items():
            await opened(page, shown, path)
            await accessible(page)
            assert seen.complaints == [], path
            await keep(page, f"console-{name}-{look}.png", full_page=True, directory=tmp_path)
