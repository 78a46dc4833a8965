"""`marway dev` at work: a real worker, the real port, and an editor that saves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway_archiver.proving.examples import Example
from marway_dev.files import HandlerFiles
from marway_dev.http import DevServer
from marway_dev.serving import Served
from marway_dev.terminal import Terminal
from marway_dev.workers import opened_workers

HANDLER = """\
from ts.handler_utils.utils import send_intermediate_predict_response


def handle(data, context):
    answers = []
    for row in data or []:
        text = row["data"] if "data" in row else sorted(row)[0]
        if text == "die":
            import os

            os._exit(3)
        if text == "stream":
            for piece in ("a ", "b "):
                send_intermediate_predict_response([piece], context.request_ids, "Intermediate", 200, context)
            text = "c"
        answers.append(LOUD(text) if isinstance(text, str) else text)
    return answers


LOUD = str.upper
"""


class Events(Terminal):
    """What was said, to be waited for."""

    def __init__(self) -> None:
        super().__init__(as_json=True)
        self.seen: list[dict[str, Any]] = []
        self._more = asyncio.Event()

    def _say(self, document: dict[str, Any], text: str, style: str = "") -> None:
        self.seen.append(document)
        self._more.set()

    async def until(self, condition: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Take what was said up to the first that meets a condition, and return that."""
        async with asyncio.timeout(60):
            while True:
                while self.seen:
                    if condition(event := self.seen.pop(0)):
                        return event
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def served_at(handler: Path, home: Path, events: Events) -> AsyncIterator[httpx.AsyncClient]:
    files = HandlerFiles(str(handler), "loud")
    async with opened_workers(files, home, events.log) as workers:
        served = Served(files, workers, events, [Example("hello")], timeout_s=20)
        server = DevServer(served)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            tasks = [asyncio.create_task(server.serve(sockets=[listener])), asyncio.create_task(served.run())]
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                yield client
            server.should_exit = True
            tasks[1].cancel()
            await asyncio.wait(tasks)
        await served.aclose()


@pytest.mark.extended  # starts a fork server, which imports torch; its parts are in test_handler_files.py
async def test_a_handler_is_served_as_it_is_edited(tmp_path: Path) -> None:
    """Each save is served: other answers are told, what fails says why in the author's own lines, a death is mended."""
    handler = tmp_path / "source" / "handler.py"
    handler.parent.mkdir()
    handler.write_text(HANDLER)
    home = tmp_path / "home"
    home.mkdir()
    events = Events()
    text = {"content-type": "text/plain"}
    async with served_at(handler, home, events) as client:

        async def saved(old: str, new: str) -> None:
            source = handler.read_text()
            assert old in source
            unfinished = handler.with_name("handler.py.tmp")
            unfinished.write_text(source.replace(old, new))
            unfinished.replace(handler)  # as editors do it
            changed = await events.until(lambda event: event["event"] == "changed")
            assert changed["files"] == ["handler.py"]

        answer = await client.post("/predict/loud", content=b"hello", headers={**text, "x-request-id": "r-1"})
        assert (answer.status_code, answer.text, answer.headers["x-request-id"]) == (200, "HELLO", "r-1")
        assert (answer.headers["x-model-name"], answer.headers["x-model-version"]) == ("loud", "dev")
        first = await events.until(lambda event: event["event"] == "answer")
        assert (first["value"], first["compared"]) == ("HELLO", "first")
        form = await client.post("/predictions/loud/1.0", data={"field": "x"})
        assert form.text == "FIELD"
        streamed = await client.post("/predict/loud", content=b"stream", headers=text)
        assert (streamed.text, streamed.headers["transfer-encoding"]) == ("a b C", "chunked")
        missing = await client.post("/predict/other", content=b"x")
        assert (missing.status_code, missing.json()["code"]) == (404, "model_not_found")
        assert (await client.post("/predict/loud")).status_code == 400
        compressed = await client.post("/predict/loud", content=b"x", headers={"content-encoding": "gzip"})
        assert compressed.status_code == 415

        await saved("str.upper", "str.title")
        other = await events.until(lambda event: event["event"] == "answer")
        assert other["value"] == "Hello"
        assert "HELLO" in other["compared"]

        await saved("LOUD = str.title", "LOUD = nothing")
        log = await events.until(lambda event: event["event"] == "log")
        assert f'File "{handler}"' in log["traceback"]
        failed = await events.until(lambda event: event["event"] == "failed")
        assert "NameError" in failed["reason"]
        refused = await client.post("/predict/loud", content=b"x", headers=text)
        assert (refused.status_code, refused.json()["code"]) == (500, "load_failed")

        await saved("LOUD = nothing", "LOUD = str.lower")
        await events.until(lambda event: event["event"] == "answer")
        died = await client.post("/predict/loud", content=b"die", headers=text)
        assert died.status_code == 503
        await events.until(lambda event: event["event"] == "loaded")
        again = await client.post("/predict/loud", content=b"HEllo", headers=text)
        assert again.text == "hello"
    assert not [each for each in home.iterdir() if each.name == "tmp"]
