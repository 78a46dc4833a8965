"""Two versions compared on a pod: asked in turns, whatever one of them does, within bounds."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, encode_examples
from marway.errors import LoadFailed, ModelError, Overloaded
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import Description, ServedModel, WorkerDied
from support.pod import FakeServer, Pod, serving
from support.registry import publisher, record_of

Handle = Callable[[bytes], Awaitable[Answer]]
SCORE = {"score": 0.5, "label": "long"}


def archive(name: str, version: str, inputs: list[ExampleInput]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        opened.writestr("MAR-INF/MANIFEST.json", json.dumps({"model": {"modelName": name, "modelVersion": version}}))
        for file, data in encode_examples(inputs).items():
            opened.writestr(file, data)
    return packed.getvalue()


def put(
    registry: Registry,
    scratch: Path,
    version: str,
    *inputs: bytes,
    source: str = "handler",
    value: Any = SCORE,
    kind: str = "json",
    **facts: Any,
) -> None:
    """Publish a version whose golden answers to ``inputs`` are all alike."""
    examples = [ExampleInput(each) for each in inputs]
    data = archive("some", version, examples)
    golden = None
    if examples:
        answer = GoldenAnswer.model_validate({"kind": kind, "value": value})
        answers = tuple(GoldenExample(input_sha256=each.sha256, answer=answer) for each in examples)
        document = {"archive_sha256": record_of(data).archive.sha256, "source": source, "examples": answers}
        golden = GoldenDocument.model_validate(document).encode()
    publisher(registry, scratch)("some", version, data=data, golden=golden, **facts)


def said(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), "json")


def server(**versions: Handle) -> FakeServer:
    """Return a model server whose versions (`v1`, `v2`) answer as these functions do, SCORE by default."""

    async def predict(model: ServedModel, row: Row) -> Answer:
        asked.append((model.version, row.parts[0].value))
        handle = versions.get(f"v{model.version.partition('.')[0]}")
        return said(SCORE) if handle is None else await handle(row.parts[0].value)

    asked: list[tuple[str, bytes]] = []
    made = FakeServer(predict_with=predict)
    made.asked = asked  # type: ignore[attr-defined]  # for the tests below
    return made


async def compare(pod: Pod, base: str | None = "1.0", **headers: str) -> httpx.Response:
    params = {} if base is None else {"base": base}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return await pod.client.post("/models/some/2.0/compare", params=params, headers=sent)


async def comparison(pod: Pod, base: str | None = "1.0") -> dict[str, Any]:
    answer = await compare(pod, base)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_both_are_asked_in_turns(registry: Registry, tmp_path: Path) -> None:
    """The base's inputs go to both versions in turns, as often as a steady median needs, and the times are told."""
    put(registry, tmp_path, "1.0", b"a", b"b", b"c")
    put(registry, tmp_path, "2.0", b"other")
    made = server()
    async with serving(registry, tmp_path, server=made, golden_warm_examples=0) as pod:
        found = await comparison(pod)
        assert (found["version"], found["base"], found["inputs_of"], found["inputs"]) == ("2.0", "1.0", "1.0", 3)
        assert (found["compared"], found["equal"], found["refused"], found["notes"]) == (3, 3, [], [])
        assert found["p50_s"] > 0
        assert found["base_p50_s"] > 0
        asked = made.asked  # type: ignore[attr-defined]  # see `server`
        assert [version for version, _ in asked[:6]] == ["1.0", "2.0", "2.0", "1.0", "1.0", "2.0"]
        assert [value for _, value in asked[:6]] == [b"a", b"a", b"b", b"b", b"c", b"c"]
        assert 6 < len(asked) <= 40
        assert len(asked) % 2 == 0


async def test_what_differs_is_told(registry: Registry, tmp_path: Path) -> None:
    """A version that fails, gives NaN, or answers in another form is refused, each with the example that shows it."""

    async def two(value: bytes) -> Answer:
        match value:
            case b"raise":
                raise ModelError("RuntimeError: oops", status=500)
            case b"nan":
                return Answer(200, b'{"score": NaN, "label": [[{"x": -Infinity}]]}', "json")
            case b"deep":
                return Answer(200, b"[" * 100_000, "json")
            case b"bytes":
                return Answer(200, b"\x00\xff", "bytes")
            case b"tensor":
                return Answer(200, b"no tensor", "tensor")
            case b"huge":
                return Answer(200, json.dumps("x" * 5_000_000).encode(), "json")
            case _:
                return said({"confidence": 0.5, "label": "long"})

    put(registry, tmp_path, "1.0", b"raise", b"nan", b"deep", b"bytes", b"tensor", b"huge", b"renamed")
    put(registry, tmp_path, "2.0")
    async with serving(registry, tmp_path, server=server(v2=two)) as pod:
        found = await comparison(pod)
        assert (found["compared"], found["equal"], found["errors"], found["base_errors"]) == (7, 0, 1, 0)
        assert found["failures"] == ["example 1: status 500: RuntimeError: oops"]
        assert found["nonfinite"] == 1
        assert len(found["refused"]) == 3
        assert found["notes"] == ["1 answers had more than 4194304 bytes: they were compared as bytes only"]
        assert len(json.dumps(found)) < 10_000
        types = next(each for each in found["fields"] if each["field"] == "")
        assert types["before"] == "object"
        assert {"bytes", "text"} <= set(types["after"].split(" or "))
        assert (await pod.predict("some/2.0", b"fine")).status_code == 200


@pytest.mark.parametrize("own", [True, False])
async def test_inputs_of_the_version_itself(registry: Registry, tmp_path: Path, own: bool) -> None:
    """Where the base has no golden inputs the version's own are used; where neither has any, that is said."""
    put(registry, tmp_path, "1.0")
    put(registry, tmp_path, "2.0", *([b"a"] if own else []))
    async with serving(registry, tmp_path, server=server()) as pod:
        found = await comparison(pod)
        if own:
            assert (found["inputs_of"], found["compared"], found["equal"]) == ("2.0", 1, 1)
        else:
            assert (found["not_compared"], found["compared"]) == ("neither 1.0 nor 2.0 has golden inputs", 0)
            assert (await comparison(pod, None))["not_compared"] == "2.0 has no golden inputs"


async def test_a_first_version_is_looked_at(registry: Registry, tmp_path: Path) -> None:
    """Without a base the version's own answers are looked at: NaN is refused."""

    async def two(value: bytes) -> Answer:
        return said({"score": float("nan")})

    put(registry, tmp_path, "2.0", b"a", b"b")
    async with serving(registry, tmp_path, server=server(v2=two)) as pod:
        found = await comparison(pod, None)
        assert found["refused"] == ["2 of 2 answers hold NaN or an infinity, such as example 1: at score: NaN"]
        assert (found["base"], found["base_p50_s"]) == (None, None)


@pytest.mark.parametrize("source", ["handler", "callable"])
async def test_a_base_that_does_not_load(registry: Registry, tmp_path: Path, source: str) -> None:
    """The published golden answers of a base that cannot run here stand for it, and that is said."""

    async def two(value: bytes) -> Answer:
        return Answer(200, json.dumps(SCORE).encode(), "json", None if source == "handler" else "application/json")

    class Refusing(FakeServer):
        async def load(self, model: ServedModel) -> Description:
            if model.version == "1.0":
                raise LoadFailed("weights that nobody packed")
            return await super().load(model)

    put(registry, tmp_path, "1.0", b"a", b"b", source=source)
    put(registry, tmp_path, "2.0")
    put(registry, tmp_path, "3.0")
    made = server(v2=two)
    async with serving(registry, tmp_path, server=Refusing(predict_with=made.predict_with)) as pod:
        found = await comparison(pod)
        assert (found["compared"], found["equal"], found["base_p50_s"]) == (2, 2, None)
        assert "1.0 cannot be asked on this pod (" in found["notes"][0]
        assert "weights that nobody packed" in found["notes"][0]
        assert found["notes"][1] == "published golden answers stand for 2 of the answers that were compared with"


async def test_a_busy_base(registry: Registry, tmp_path: Path) -> None:
    """A base that is too busy to be asked is stood for by its published answers, too; without any, the pod says so."""

    async def busy(value: bytes) -> Answer:
        raise Overloaded("64 requests wait for some 1.0 already")

    put(registry, tmp_path, "1.0", b"a")
    put(registry, tmp_path, "2.0", b"z")
    async with serving(registry, tmp_path, server=server(v1=busy), golden_warm_examples=0) as pod:
        found = await comparison(pod)
        assert (found["equal"], found["base_p50_s"]) == (1, None)
        assert found["notes"] == ["published golden answers stand for 1 of the answers that were compared with"]
    registry_of_bare = tmp_path / "bare"
    registry_of_bare.mkdir()
    put(registry, registry_of_bare, "1.5")
    async with serving(registry, registry_of_bare, server=server(v1=busy), golden_warm_examples=0) as pod:
        answer = await compare(pod, "1.5")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
        assert "too busy" in answer.json()["detail"]


async def test_a_version_that_kills_its_workers(registry: Registry, tmp_path: Path) -> None:
    """Each input that kills a worker is a failure of the version, also when the pod gives it a pause."""

    async def two(value: bytes) -> Answer:
        raise WorkerDied("killed")

    inputs = [f"input {number}".encode() for number in range(12)]
    put(registry, tmp_path, "1.0", *inputs)
    put(registry, tmp_path, "2.0")
    async with serving(registry, tmp_path, server=server(v2=two)) as pod:
        found = await comparison(pod)
        assert (found["errors"], found["base_errors"], found["p50_s"]) == (12, 0, None)
        assert found["failures"][0] == "example 1: status 500: it killed its worker"
        assert found["refused"][0].startswith("it fails 12 of 12 inputs that 1.0 answers")


async def test_a_version_that_hangs(registry: Registry, tmp_path: Path) -> None:
    """A version that does not answer within its own time-out fails that input; what was compared in time counts."""
    never = asyncio.Event()

    async def two(value: bytes) -> Answer:
        if value == b"hang":
            await never.wait()
        return said(SCORE)

    put(registry, tmp_path, "1.0", b"a", b"hang")
    put(registry, tmp_path, "2.0", serving=ServingSettings(predict_timeout_s=0.2))
    async with serving(registry, tmp_path, server=server(v2=two)) as pod:
        found = await comparison(pod)
        assert found["failures"] == ["example 2: status 504: no answer within 0.2 s"]
        never.set()
    never.clear()
    put(registry, tmp_path, "2.1")
    async with serving(registry, tmp_path, server=server(v2=two)) as pod:
        answer = await pod.client.post(
            "/models/some/2.1/compare", params={"base": "1.0"}, headers={"x-request-timeout-ms": "1500"}
        )
        assert (answer.status_code, answer.json()["compared"]) == (200, 1)
        assert answer.json()["notes"] == ["1 of 2 inputs were compared"]
        never.set()


async def test_versions_that_are_not_there(registry: Registry, tmp_path: Path) -> None:
    """A version or base that does not exist, and a pod that drains, are refused as for a load."""
    put(registry, tmp_path, "2.0")
    async with serving(registry, tmp_path, server=server()) as pod:
        answer = await compare(pod, "1.0")
        assert (answer.status_code, answer.json()["code"]) == (404, "version_not_found")
        assert (await compare(pod, None, x_request_timeout_ms="soon")).status_code == 400
        await pod.client.post("/drain")
        answer = await compare(pod, None)
        assert (answer.status_code, answer.json()["code"]) == (503, "draining")
