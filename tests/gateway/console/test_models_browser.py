"""The console's pages of models in a real browser: what they show, what they change, and that all can use them."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.async_api import Page

from gateway.console.conftest import Shown
from support.browser import Seen, keep, needs_browser

pytestmark = [
    needs_browser,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.extended,  # test_pages.py and test_login.py, without a browser
]


async def test_pictures_of_models(shown: Shown, opened: tuple[Page, Seen], tmp_path: Path) -> None:
    """The list and a model's page, as docs/console.md shows them."""
    page, seen = opened
    await page.goto(f"{shown.console}/")
    await keep(page, "console-models.png", directory=tmp_path)
    await page.click("a[href$='models/intent']")
    await page.wait_for_load_state()
    await keep(page, "console-model.png", directory=tmp_path, full_page=True)
    assert seen.complaints == []
