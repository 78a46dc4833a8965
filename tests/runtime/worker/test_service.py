"""What a worker behind TorchServe's front end makes of its messages."""

from __future__ import annotations

import asyncio
import io
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marway.wire.answer_pieces import PiecesReader
from marway.wire.envelope import KEY, Answer, Part, Row, decode_answers
from marway_runtime.worker.service import within
from support.native_worker import service_of

# TorchServe leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore:.*metrics.yaml:pytest.PytestUnraisableExceptionWarning")


def test_an_answer_over_the_limit_leaves_nothing_of_it() -> None:
    """What is too large for the message is replaced whole, its content type too."""
    (answer,) = within([Answer(200, b"x" * 100_000, "text", "y" * 100_000)], 50_000)
    assert (answer.status, answer.kind, answer.content_type) == (507, "error", None)


def asked(request_id: str, *said: str, stream: bool = False) -> dict[str, Any]:
    """Return a request of TorchServe's protocol as its reader gives it: with an envelope of these rows, or nothing."""
    rows = [Row(f"r-{text}", [Part("data", text.encode(), "text/plain")], {}, stream) for text in said]
    parameters = [{"name": KEY, "contentType": "", "value": rows}] if rows else []
    return {"requestId": request_id.encode(), "headers": [], "parameters": parameters}


def read(message: bytes) -> dict[str, tuple[bytes, str | None]]:
    """Return what a message of TorchServe's protocol says: by request its value, and whether more follows."""
    stream = io.BytesIO(message)

    def number() -> int:
        return int(struct.unpack("!i", stream.read(4))[0])

    def text() -> bytes:
        return stream.read(number())

    assert number() == 200
    text()
    found = {}
    while (length := number()) != -1:
        request_id = stream.read(length).decode()
        text(), number(), text()
        headers = {text().decode(): text().decode() for _ in range(number())}
        found[request_id] = (text(), headers.get("ts_stream_next"))
    return found


def echo(data: list[Any], context: Any) -> list[str]:
    return [f"{row['data']} of {len(data)}" for row in data]


def test_calls_that_come_together_are_each_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive's `batchSize` has the front end send several envelopes at once; each is a call of the handler."""
    service = service_of(echo, tmp_path, monkeypatch)
    said = read(service.predict([asked("one", "a", "b"), asked("two", "c")]))
    assert {name: [each.body for each in decode_answers(value)] for name, (value, _) in said.items()} == {
        "one": [b"a of 2", b"b of 2"],
        "two": [b"c of 1"],
    }
    (alone,) = read(service.predict([asked("one", "a")])).values()
    assert alone[1] is None
    (streamed,) = read(service.predict([asked("one", "a", stream=True)])).values()
    assert streamed[1] == "false"


def test_rows_under_way_come_again_without_their_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Continuous batching: pieces say whether they are the last, and no front end is left with one piece alone."""
    words: dict[str, list[str]] = {}
    seen = []

    def handle(data: list[Any], context: Any) -> list[str]:
        ids = list(context.request_ids.values())
        seen.append(ids)
        words.update({name: row["data"].split() for name, row in zip(ids, data, strict=True) if row})
        context.stopping_criteria = [lambda _, name=name: not words[name] for name in ids]
        return [words[name].pop(0) for name in ids]

    service = service_of(handle, tmp_path, monkeypatch, config="continuousBatching: true\n")
    readers: dict[str, PiecesReader] = {}

    def step(*calls: dict[str, Any]) -> dict[str, tuple[list[bytes], bool, str | None]]:
        found = {}
        for name, (value, following) in read(service.predict(list(calls))).items():
            reader = readers.setdefault(name, PiecesReader())
            found[name] = ([each.body for each in reader.feed(value)], reader.whole, following)
        return found

    assert step(asked("one", "a b c", stream=True)) == {"one": ([b"a"], False, "true")}
    assert step(asked("one"), asked("two", "x", stream=True)) == {
        "one": ([b"b"], False, "true"),
        "two": ([b"x"], True, "true"),  # whole, and not yet over for the front end
    }
    assert step(asked("one"), asked("two")) == {"one": ([b"c"], True, "false"), "two": ([], True, "false")}
    step(asked("three", "a b", stream=True))
    assert step(asked("four", "y z", stream=True)) == {"four": ([b"y"], False, "true")}  # the caller of three has gone
    assert seen[-1] == ["r-y z.4"]


def test_calls_that_are_under_way_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncCommunication`: each call's pieces and answer are sent in their order, and one that raises fails alone."""
    from ts import async_service

    met = asyncio.Event()

    async def handle(data: list[Any], context: Any) -> list[str]:
        said = data[0]["data"]
        if said == "raise":
            raise ValueError("on purpose")
        if said == "meet":
            met.set()
        if said == "pieces":
            from ts.handler_utils.utils import send_intermediate_predict_response

            send_intermediate_predict_response(["first "], context.request_ids, "ok", 200, context)
        await met.wait()
        return [said]

    service = service_of(handle, tmp_path, monkeypatch, config="asyncCommunication: true\n")
    sent: list[dict[str, tuple[bytes, str | None]]] = []
    service.set_cl_socket(SimpleNamespace(sendall=lambda message: sent.append(read(message))))

    async def all_at_once() -> None:
        calls = [asked("a", "wait"), asked("b", "pieces", stream=True), asked("c", "raise"), asked("d", "meet")]
        made = [asyncio.create_task(async_service.predict(service, [call])) for call in calls]
        assert await asyncio.gather(*made) == [b""] * 4

    asyncio.run(all_at_once())
    said = [(name, value, following) for each in sent for name, (value, following) in each.items()]
    came = [(name, decode_answers(value)[0].body, following) for name, value, following in said]
    assert came[:2] == [("b", b"first ", "true"), ("c", b"ValueError: on purpose", None)]
    assert sorted(came[2:]) == [("a", b"wait", None), ("b", b"pieces", "false"), ("d", b"meet", None)]


def test_a_long_content_type_counts_though_the_body_is_small() -> None:
    """Small answers are let through unencoded only when nothing about them can be large."""
    small, long = Answer(200, b"x", "text"), Answer(200, b"x", "text", "y" * 60_000)
    assert within([small, small], 50_000) == [small, small]
    assert [each.status for each in within([small, long], 50_000)] == [200, 507]
