"""Requests of many rows to a pod: an envelope of rows in, an envelope of answers out."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import torch

from marway.deadline import Deadline
from marway.errors import ModelError, Overloaded
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import (
    KEY,
    ROWS_CONTENT_TYPE,
    ROWS_MAX,
    Answer,
    Part,
    Row,
    decode_answers,
    encode_rows,
)
from marway_sidecar.backends.base import NotLoaded, ServedModel
from support.pod import FakeServer, Pod, serving
from support.registry import publish, until


def rows(*values: bytes) -> list[Row]:
    return [Row("", [Part("data", value, "text/plain")], {"content-type": "text/plain"}) for value in values]


async def post(pod: Pod, body: bytes, **headers: str) -> httpx.Response:
    return await pod.predict("some", body, content_type=ROWS_CONTENT_TYPE, **headers)


async def ask(pod: Pod, *values: bytes) -> list[Answer]:
    answer = await post(pod, encode_rows(rows(*values)))
    assert (answer.status_code, answer.headers["content-type"]) == (200, ROWS_CONTENT_TYPE), answer.text
    assert answer.headers["x-marway-outcome"] == "answered"
    return decode_answers(answer.content)


@dataclass
class Batches(FakeServer):
    """A model server that notes its calls, and in which a batch with a bad row fails as a whole."""

    calls: list[list[bytes]] = field(default_factory=list)
    raises: bool = False

    async def predict(self, model: ServedModel, rows: Sequence[Row], deadline: Deadline) -> list[Answer]:
        values = [row.parts[0].value for row in rows]
        self.calls.append(values)
        if b"bad" in values:
            if self.raises:
                raise ModelError("ValueError: bad", status=422)
            return [Answer(422, b"ValueError: bad", "error")] * len(rows)
        return await super().predict(model, rows, deadline)


async def test_rows_become_calls_of_the_size_that_the_version_takes(registry: Registry, tmp_path: Path) -> None:
    """Rows go out in batches of at most `max_batch_rows`, and come back in their order."""
    publish(registry, tmp_path, "some", "1.0", serving=ServingSettings(max_batch_rows=4))
    values = [b"%d" % number for number in range(10)]
    server = Batches()
    async with serving(registry, tmp_path, server=server) as pod:
        answers = await ask(pod, *values)
    assert [answer.body for answer in answers] == values
    assert sorted(server.calls) == sorted([values[:4], values[4:8], values[8:]])


async def test_a_version_that_takes_no_batch_gets_rows_one_by_one(registry: Registry, tmp_path: Path) -> None:
    """With `max_batch_rows` 1, and where bytes do not allow more, every row is a call of its own."""
    publish(registry, tmp_path, "some", "1.0", serving=ServingSettings(max_batch_rows=1))
    publish(registry, tmp_path, "small", "1.0", serving=ServingSettings(max_batch_rows=9, max_batch_bytes=3))
    server = Batches()
    async with serving(registry, tmp_path, server=server) as pod:
        assert [answer.body for answer in await ask(pod, b"a", b"b", b"c")] == [b"a", b"b", b"c"]
        assert sorted(server.calls) == [[b"a"], [b"b"], [b"c"]]
        server.calls.clear()
        await pod.predict("small", encode_rows(rows(b"aa", b"b", b"cccc")), content_type=ROWS_CONTENT_TYPE)
        assert sorted(server.calls) == [[b"aa", b"b"], [b"cccc"]]


@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("most", [1, 8])
async def test_a_bad_row_fails_alone(registry: Registry, tmp_path: Path, most: int, raises: bool) -> None:
    """One row that the handler fails on is an error among answers, also where it took its batch with it."""
    publish(registry, tmp_path, "some", "1.0", serving=ServingSettings(max_batch_rows=most))
    async with serving(registry, tmp_path, server=Batches(raises=raises)) as pod:
        answers = await ask(pod, b"a", b"bad", b"c")
        kept = [(await post(pod, encode_rows(rows(value)))).headers.get("cache-control") for value in (b"a", b"bad")]
        assert kept == [None, "no-store"]
    assert [(answer.status, answer.kind, answer.body) for answer in answers] == [
        (200, "bytes", b"a"),
        (422, "error", b"ValueError: bad"),
        (200, "bytes", b"c"),
    ]


async def test_rows_see_what_a_request_of_their_own_would(registry: Registry, tmp_path: Path) -> None:
    """A row has its own content type and id, and the headers of the request that handlers may see."""
    publish(registry, tmp_path, "some", "1.0")
    sent = [
        Row("theirs", [Part("data", b"[1]", "application/json")], {"content-type": "application/json", "explain": "1"}),
        Row("", [Part("a", b"x"), Part("b", b"y", "image/png")], {"content-type": "multipart/form-data"}),
    ]
    async with serving(registry, tmp_path) as pod:
        await post(pod, encode_rows(sent), x_request_id="r", x_tenant="blue", authorization="Bearer x", explain="True")
        await post(pod, encode_rows(sent[:1]), x_request_id="r")
        first, second, single = pod.server.rows
    assert (first.request_id, second.request_id, single.request_id) == ("r/0", "r/1", "r")
    assert [row.parts for row in (first, second)] == [row.parts for row in sent]
    assert first.headers["content-type"] == "application/json"
    assert second.headers["content-type"] == "multipart/form-data"
    assert first.headers["x-tenant"] == "blue"
    assert not first.headers.keys() & {"authorization", "explain", "content-length"}
    assert (first.is_raw, second.is_raw) == (True, False)


def header(text: str, rest: bytes = b"") -> bytes:
    return b"MWE1" + len(text).to_bytes(4, "big") + text.encode() + rest


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"hello", "not an envelope"),
        (encode_rows(rows(b"a"))[:-1], "its header speaks of"),
        (encode_rows(rows(b"a")) + b"x", "its header speaks of"),
        (encode_rows([]), "holds 0 rows"),
        (encode_rows(rows(*[b"x"] * (ROWS_MAX + 1))), f"send 1 to {ROWS_MAX}"),
        (encode_rows([Row("", [])]), "row 0 has no parts"),
        (encode_rows([Row("", [Part(KEY, b"x")])]), "kept for Marway"),
        (encode_rows([Row("", [Part("data", b"x")], stream=True)]), "asks for a stream"),
        (encode_rows([Row("", [Part("data", b"x", "text/plain\r\nx: y")])]), "no header could carry"),
        (encode_rows([Row("", [Part("data", b"x")], {"content-type": "ü"})]), "no header could carry"),
        (header("{}"), "no list"),
        (header("[1]"), "something else than objects"),
        (header("[" * 100_000), "nested too deeply"),
        (header('[{"id":1,"parts":[],"headers":{}}]'), "id is no text"),
        (header('[{"id":"","headers":{}}]'), "no list of parts"),
        (header('[{"id":"","parts":[["data",null]],"headers":{}}]'), "not name, content type and size"),
        (header('[{"id":"","parts":[["data",null,-1]],"headers":{}}]'), "no number of bytes"),
        (header('[{"id":"","parts":[["data",null,true]],"headers":{}}]', b"x"), "no number of bytes"),
        (header('[{"id":"","parts":[[1,null,0]],"headers":{}}]'), "name or content type is no text"),
        (header('[{"id":"","parts":[["data",null,0]],"headers":{"a":1}}]'), "headers are not texts"),
        (header('[{"id":"","parts":[["data",null,0]]}]'), "headers are not texts"),
    ],
)
async def test_what_is_no_envelope_of_rows_is_refused(
    registry: Registry, tmp_path: Path, body: bytes, says: str
) -> None:
    """A body that only pretends to be an envelope is a 400 that says why, and no row of it is run."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        answer = await post(pod, body)
        assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
        assert says in answer.json()["detail"]
        assert answer.headers["x-marway-outcome"] == "refused"
        assert pod.server.rows == []


async def test_a_tensor_answer_is_numbers(registry: Registry, tmp_path: Path) -> None:
    """What a handler returned as a torch tensor comes as JSON lists; what cannot be read is an error of its row."""
    saved = io.BytesIO()
    torch.save(torch.tensor([[1, 2], [3, 4]]), saved)

    async def tensors(model: ServedModel, row: Row) -> Answer:
        return Answer(200, saved.getvalue() if row.parts[0].value == b"good" else b"PK", "tensor")

    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=tensors)) as pod:
        good, bad = await ask(pod, b"good", b"bad")
    assert (good.kind, json.loads(good.body)) == ("json", [[1, 2], [3, 4]])
    assert (bad.kind, bad.status) == ("error", 500)


async def test_what_fails_every_row_fails_the_request(registry: Registry, tmp_path: Path) -> None:
    """Where no row failed by itself, the request fails as one of a single row does."""

    async def full(model: ServedModel, row: Row) -> Answer:
        raise Overloaded("the queue is full")

    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=full)) as pod:
        answer = await post(pod, encode_rows(rows(b"a", b"b")))
        assert (answer.status_code, answer.headers["x-marway-outcome"]) == (429, "not_accepted")
        assert (await pod.predict("nix", b"", content_type=ROWS_CONTENT_TYPE)).status_code == 404


async def test_a_version_that_was_lost_is_loaded_again(registry: Registry, tmp_path: Path) -> None:
    """Rows for a version that the model server forgot are answered once it has it again."""
    publish(registry, tmp_path, "some", "1.0")
    forgets = 1

    async def once(model: ServedModel, row: Row) -> Answer:
        nonlocal forgets
        if forgets:
            forgets -= 1
            raise NotLoaded("forgotten")
        return Answer(200, row.parts[0].value, "bytes")

    async with serving(registry, tmp_path, server=FakeServer(predict_with=once)) as pod:
        assert [answer.body for answer in await ask(pod, b"a", b"b")] == [b"a", b"b"]


async def test_a_client_that_leaves_ends_what_has_not_begun(registry: Registry, tmp_path: Path) -> None:
    """When the client goes away, rows that wait are not run, and the pod is free again after those that run."""
    publish(registry, tmp_path, "some", "1.0", serving=ServingSettings(max_batch_rows=1, max_workers=1))
    go = asyncio.Event()

    async def slow(model: ServedModel, row: Row) -> Answer:
        await go.wait()
        return Answer(200, b"", "bytes")

    async with serving(registry, tmp_path, server=FakeServer(predict_with=slow)) as pod:
        asking = asyncio.create_task(post(pod, encode_rows(rows(b"a", b"b", b"c", b"d", b"e"))))
        await until(lambda: [model.requests_queued for model in pod.sidecar.pool.statuses()] == [3])
        asking.cancel()
        await until(lambda: [model.requests_queued for model in pod.sidecar.pool.statuses()] == [0])
        go.set()
        await until(lambda: pod.sidecar.pool.in_flight == 0)
        assert len(pod.server.rows) == 1
