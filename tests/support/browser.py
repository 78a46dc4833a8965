"""A real browser without a window, driven by Playwright: Debian's chromium, or any that is on PATH."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, ConsoleMessage, Page, Request, async_playwright, expect

__all__ = ["Seen", "accessible", "browser", "keep", "needs_browser", "new_page", "reached_by_keyboard"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = (
    *("--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"),
    # No name leads anywhere: a page that needs another host than this one is seen to lack something.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)
WAIT_MS = 100_000
expect.set_options(timeout=WAIT_MS)  # a machine that is busy, not one that is idle, is what tests run on
PICTURES = os.environ.get("MARWAY_PICTURES")
"""The directory that `make pictures` has the pictures of docs/ written to."""


@dataclass
class Seen:
    """What a page did.

    Attributes:
        asked: The addresses of all that it asked for.
        complaints: What it logged as errors: exceptions, failed requests, what its policy stopped.
    """

    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def forget(self) -> None:
        self.asked.clear()
        self.complaints.clear()


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Start a browser."""
    assert CHROMIUM is not None
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS), chromium_sandbox=False)
        try:
            yield started
        finally:
            await started.close()


@contextlib.asynccontextmanager
async def new_page(
    of: Browser, *, width: int = 1100, height: int = 900, **options: Any
) -> AsyncIterator[tuple[Page, Seen]]:
    """Open a page with cookies of its own; ``options`` are those of a context of Playwright, such as `color_scheme`."""
    context = await of.new_context(viewport={"width": width, "height": height}, **options)
    context.set_default_timeout(WAIT_MS)
    try:
        page, seen = await context.new_page(), Seen()

        def said(message: ConsoleMessage) -> None:
            if message.type == "error":
                seen.complaints.append(message.text)

        def asked(request: Request) -> None:
            seen.asked.append(request.url)

        page.on("console", said)
        page.on("request", asked)
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        yield page, seen
    finally:
        await context.close()


async def accessible(page: Page) -> None:
    """Look at the page as it is with axe-core: WCAG 2.2 AA and its best practices, no violation."""
    found = await Axe().run(page)
    assert found.violations_count == 0, f"{page.url}\n{found.generate_report()}"
    wider = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"{page.url} is {wider} px wider than the window"


async def reached_by_keyboard(page: Page, selector: str, *, presses: int = 60) -> None:
    """Press Tab until the element that a selector finds has the focus, and see that the focus shows."""
    for _ in range(presses):
        await page.keyboard.press("Tab")
        if await page.evaluate("(selector) => document.activeElement?.matches(selector) ?? false", selector):
            outline = await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none", f"{selector} does not show that it has the focus"
            return
    raise AssertionError(f"{selector} is not reached with {presses} presses of Tab on {page.url}")


async def keep(page: Page, name: str, *, full_page: bool = False, directory: Path) -> None:
    """Take a picture; `make pictures` keeps it for docs/.

    Args:
        page: Of what.
        name: The file's, such as `console-models.png`.
        full_page: Also what is below the window.
        directory: Where it lies in a test that keeps none.
    """
    picture = Path(PICTURES) / name if PICTURES else directory / name
    picture.parent.mkdir(exist_ok=True)
    await page.screenshot(path=picture, full_page=full_page, animations="disabled")
    assert 5_000 < picture.stat().st_size < 300_000
