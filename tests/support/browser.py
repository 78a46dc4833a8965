"""A real browser without a window, admin_pod over its DevTools protocol: Debian's chromium, or any that is on PATH."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

__all__ = ["Page", "browser", "needs_browser"]

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"),
    # No name leads anywhere: a page that needs another host than this one is seen to lack something.
    *("--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1", "--remote-debugging-port=0", "--no-proxy-server"),
)
WAIT_S = 100


_LEFT = -32000
"""The code with which the browser says that a page was left while it did something there."""


class _PageLeft(Exception):
    pass


class Page:
    """One page.

    Attributes:
        asked: The addresses of all that it asked for.
        complaints: What it logged as errors: exceptions, failed requests, what its policy stopped.
    """

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.asked: list[str] = []
        self.complaints: list[str] = []

    async def listen(self) -> None:
        """Take in what the browser says, until it ends."""
        async for message in self._socket:
            said = json.loads(message.data)
            params = said.get("params", {})
            match said.get("method"):
                case None:
                    self._answers.pop(said["id"]).set_result(said)
                case "Network.requestWillBeSent":
                    self.asked.append(params["request"]["url"])
                case "Log.entryAdded" if params["entry"]["level"] == "error":
                    self.complaints.append(params["entry"]["text"])
                case "Runtime.exceptionThrown":
                    self.complaints.append(json.dumps(params["exceptionDetails"]))

    async def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Have the browser do something, and return what came of it."""
        number = next(self._ids)
        self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": params})
        said = await asyncio.wait_for(self._answers[number], WAIT_S)
        if said.get("error", {}).get("code") == _LEFT:
            raise _PageLeft(said["error"]["message"])
        assert "error" not in said, said
        result: dict[str, Any] = said["result"]
        return result

    async def go(self, url: str) -> None:
        """Open an address."""
        self.asked.clear()
        self.complaints.clear()
        assert "errorText" not in await self.send("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """Return what a script comes to, a promise's outcome where it is one."""
        said = await self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    async def until(self, script: str) -> Any:
        """Wait until a script comes to something that is true, here or on a page that this one leads to; return it."""
        look = f"(() => {{ const it = ({script}); return it instanceof Node ? true : it; }})()"
        try:
            async with asyncio.timeout(WAIT_S):
                while True:
                    with contextlib.suppress(_PageLeft):
                        if found := await self.run(look):
                            return found
                    await asyncio.sleep(0.02)
        except TimeoutError as exc:
            shown = await self.run("document.body.innerText")
            raise AssertionError(f"never came true: {script}\nlogged: {self.complaints}\nshown: {shown}") from exc

    async def type(self, selector: str, text: str) -> None:
        """Put text in a field, as somebody who types it in the place of what is there."""
        await self.run(
            f"""(() => {{ const it = document.querySelector({json.dumps(selector)}); it.focus(); it.select(); }})()"""
        )
        await self.send("Input.insertText", text=text)

    async def click(self, selector: str) -> None:
        """Click on what a selector finds once it is there."""
        await self.until(f"document.querySelector({json.dumps(selector)})")
        await self.run(f"document.querySelector({json.dumps(selector)}).click()")

    async def picture(self, path: Path, *, width: int, height: int) -> None:
        """Write what it looks like as a PNG."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.send("Emulation.setDeviceMetricsOverride", **screen)
        path.write_bytes(base64.b64decode((await self.send("Page.captureScreenshot", format="png"))["data"]))


@contextlib.asynccontextmanager
async def browser(directory: Path) -> AsyncIterator[Page]:
    """Start a browser that keeps all it has in ``directory``, and give its page."""
    assert CHROMIUM is not None
    log = (directory / "chromium.log").open("wb")
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, *FLAGS, f"--user-data-dir={directory}", "about:blank"),
        stdout=log,
        stderr=log,
        env=os.environ | {"HOME": str(directory)},
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(WAIT_S):
            port = directory / "DevToolsActivePort"
            while not (port.exists() and port.read_text().count("\n")):
                assert process.returncode is None, (directory / "chromium.log").read_text()
                await asyncio.sleep(0.02)
        base = f"http://127.0.0.1:{port.read_text().splitlines()[0]}"
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/json/list") as listed:
                target = next(each for each in await listed.json() if each["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Page(socket)
                listening = asyncio.create_task(page.listen())
                for domain in ("Page", "Network", "Runtime", "Log"):
                    await page.send(f"{domain}.enable")
                yield page
                await session.close()
                listening.cancel()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        await process.wait()
        log.close()
