"""The pod contract over HTTP: predictions, single versions, drains and health."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest

from marway.errors import InvalidRequest
from marway.registry import Registry
from marway.wire.envelope import Answer, Row
from marway.wire.headers import HEADER_BYTES_MAX, HEADERS_MAX
from marway.wire.pods import ModelStatus, PodStatus
from marway.wire.request import new_request_id, read_ids, timeout_of
from marway_sidecar.backends.base import ServedModel
from support.pod import FakeServer, serving
from support.registry import publish, until


async def test_a_prediction(registry: Registry, tmp_path: Path) -> None:
    """A body goes to the version that the label points at, and its answer comes back with what it is."""
    record = publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        for path in ("some", "some/PROD", "some/1.0", record.id):
            answer = await pod.predict(path, b"hello", content_type="text/plain", x_request_id="r-1")
            assert (answer.status_code, answer.content) == (200, b"hello")
            assert answer.headers["content-type"] == "text/plain"
            assert answer.headers["x-marway-outcome"] == "answered"
            assert answer.headers["x-request-id"] == "r-1"
            assert answer.headers["x-model-name"] == "some"
            assert answer.headers["x-model-version"] == "1.0"
            assert answer.headers["x-model-id"] == record.id
            assert answer.headers["server-timing"].startswith("model;dur=")


@pytest.mark.parametrize("how", ["gone", "emptied"])
async def test_a_restarted_pod_whose_registry_is_away_refuses_nothing_for_good(
    registry: Registry, tmp_path: Path, how: str
) -> None:
    """A pod that knows nothing yet and finds no registry says 503 and not that there is no model."""
    publish(registry, tmp_path, "some", "1.0")
    root = Path(registry.url.removeprefix("file://"))
    async with serving(registry, tmp_path) as pod:
        root.rename(root.with_name("away"))
        if how == "emptied":
            root.mkdir()  # as a mount point is whose volume is gone
        for path in ("some", "some/1.0", "some/PROD"):
            answer = await pod.predict(path, b"hello")
            assert (answer.status_code, answer.json()["code"]) == (503, "registry_unavailable"), answer.text
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.headers["x-marway-outcome"] == "not_accepted"
        root.with_name("away").rename(root)
        assert (await pod.predict("some", b"hello")).status_code == 200


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "code"),
    [
        ("other", b"x", {}, 404, "model_not_found"),
        ("some/9.9", b"x", {}, 404, "version_not_found"),
        ("some/STG", b"x", {}, 404, "label_not_found"),
        ("some", b"", {}, 400, "invalid_request"),
        ("some", b"x", {"x_request_timeout_ms": "soon"}, 400, "invalid_request"),
        ("some", b"x" * 101, {}, 413, "body_too_large"),
    ],
)
async def test_a_refused_request(
    registry: Registry, tmp_path: Path, path: str, body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    """A request that nobody could answer is refused with a problem, and never reaches the model server."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, max_body_bytes=100) as pod:
        answer = await pod.predict(path, body, **headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer.headers["x-marway-outcome"] == "refused"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]
        assert pod.server.rows == []


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (Answer(418, b"no", "text", "text/x-tea", {"X-Own": "1", "Content-Length": "9"}), 418, b"no"),
        (Answer(200, b"x", "text", "text/plain", {"X-Own": " a\tb \xfc "}), 200, b"x"),
        (Answer(200, b"x", "text", "", {"X-Own": ""}), 200, b"x"),
        (Answer(200, b"x", "text", "text/plain", {"X-Own": "v" * (HEADER_BYTES_MAX - 5)}), 200, b"x"),
        (Answer(200, b"x", "text", "text/plain", {f"x-{at}": "1" for at in range(HEADERS_MAX)}), 200, b"x"),
        (Answer(204, b"dropped", "text"), 204, b""),
    ],
    ids=["own status", "white space", "empty", "as long as may be", "as many as may be", "no content"],
)
async def test_what_a_handler_sets(
    registry: Registry, tmp_path: Path, answer: Answer, status: int, body: bytes
) -> None:
    """Status, content type and headers of a handler reach the client."""

    async def say(model: ServedModel, row: Row) -> Answer:
        return answer

    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=say)) as pod:
        got = await pod.predict("some")
        assert (got.status_code, got.content) == (status, body)
        assert got.headers["x-marway-outcome"] == "answered"
        for name, value in answer.headers.items():
            assert name == "Content-Length" or got.headers[name] == value.strip()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (Answer(200, b"x", "text", "text/plain\r\nx-smuggled: 1"), "content type"),
        (Answer(200, b"x", "text", "a/" + "b" * 2000), "content type"),
        (Answer(200, b"x", "text", None, {"X-Bad": "a\r\nb: c"}), "X-Bad"),
        (Answer(200, b"x", "text", None, {"X-Bad\r\nX-Smuggled": "1"}), "name"),
        (Answer(200, b"x", "text", None, {"": "1"}), "name"),
        (Answer(200, b"x", "text", None, {"X-Bad": "\u65e5\u672c"}), "X-Bad"),
        (Answer(200, b"x", "text", None, {"X-Bad": "\ud800"}), "X-Bad"),
        (Answer(200, b"x", "text", None, {"x-\xfc": "1"}), "name"),
        (Answer(200, b"x", "text", None, {f"x-{at}": "1" for at in range(300)}), "300 response headers"),
        (Answer(200, b"x", "text", None, {"X-Long": "v" * 100_000}), "bytes"),
        (Answer(99, b"x", "text"), "status 99"),
        (Answer(600, b"x", "text"), "status 600"),
    ],
)
async def test_fault_headers_that_cannot_be_sent(registry: Registry, tmp_path: Path, answer: Answer, says: str) -> None:
    """What a handler sets that HTTP cannot carry is that request's own fault, which says what; nothing is smuggled."""

    async def say(model: ServedModel, row: Row) -> Answer:
        return answer if row.parts[0].value == b"bad" else Answer(200, b"fine", "text")

    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=say)) as pod:
        got = await pod.predict("some", b"bad")
        assert (got.status_code, got.json()["code"], got.headers["x-marway-outcome"]) == (500, *2 * ("model_error",))
        assert says in got.json()["detail"]
        assert "x-smuggled" not in got.headers
        assert (await pod.predict("some", b"good")).content == b"fine"


async def test_one_bad_request_harms_no_other(registry: Registry, tmp_path: Path) -> None:
    """Requests whose handler, or whose sidecar, fails unexpectedly leave those beside them alone."""

    async def moody(model: ServedModel, row: Row) -> Answer:
        await asyncio.sleep(0)
        match row.parts[0].value:
            case b"raise":
                raise ZeroDivisionError("unexpected")
            case b"error":
                return Answer(422, b"KeyError: 'text'", "error")
            case b"status":
                return Answer(42, b"x", "text")
            case value:
                return Answer(200, value, "text")

    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path, server=FakeServer(predict_with=moody)) as pod:
        bodies = [b"raise", b"error", b"status", b"fine"] * 5
        answers = await asyncio.gather(*(pod.predict("some", body) for body in bodies))
        seen = {
            body: (answer.status_code, answer.headers["x-marway-outcome"])
            for body, answer in zip(bodies, answers, strict=True)
        }
        assert seen == {
            b"raise": (500, "failed"),
            b"error": (422, "model_error"),
            b"status": (500, "model_error"),
            b"fine": (200, "answered"),
        }
        assert "ZeroDivision" not in answers[0].text


async def test_a_slow_body_ends_at_the_deadline(registry: Registry, tmp_path: Path) -> None:
    """The deadline covers the reading of the body, and the answer closes the connection."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(pod.url).port)
        writer.write(
            b"POST /predict/some HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\nx-request-timeout-ms: 100\r\n\r\nso"
        )
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 504 ")
        assert b"connection: close" in answer
        assert b"deadline_exceeded" in answer
        assert pod.server.rows == []


async def test_headers_have_limits(registry: Registry, tmp_path: Path) -> None:
    """Too many headers, or too many bytes of them, are refused with a problem; others are served on."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        for headers in ({f"x-{number}": "1" for number in range(200)}, {"x-long": "a" * 70_000}):
            answer = await pod.client.post("/predict/some", content=b"x", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (431, "headers_too_large")
        assert (await pod.predict("some")).status_code == 200


@pytest.mark.parametrize("sent", [b"", b"POST /predict/some HTTP/1.1\r\nhost: x\r\n"], ids=["nothing", "half"])
async def test_headers_that_do_not_come_are_not_waited_for(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    """A connection that sends no whole headers is closed; one that idles after a request is kept."""
    monkeypatch.setattr("marway_sidecar.serve._HEADERS_S", 0.2)
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(pod.url).port)
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b'{"status":"ok"}')
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", httpx.URL(pod.url).port)
        late_writer.write(sent)
        assert (await asyncio.wait_for(late_reader.read(), 20)).startswith(b"HTTP/1.1 408 ")
        late_writer.close()
        writer.write(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b'{"status":"ok"}')
        writer.close()


async def test_a_client_that_leaves_a_load_is_forgotten(registry: Registry, tmp_path: Path) -> None:
    """A request whose client goes away while the version is loaded never reaches the model server."""
    publish(registry, tmp_path, "some", "1.0")
    server = FakeServer()
    server.may_load.clear()
    async with serving(registry, tmp_path, server=server) as pod:
        with pytest.raises(httpx.ReadTimeout):
            await pod.client.post("/predict/some", content=b"gone", timeout=0.3)
        await until(lambda: pod.sidecar.draining.requests_in_flight == 0)
        server.may_load.set()
        assert (await pod.predict("some", b"here")).content == b"here"
        assert [row.parts[0].value for row in server.rows] == [b"here"]


async def test_one_version(registry: Registry, tmp_path: Path) -> None:
    """A version is absent, loaded when that is asked for, ready, and unloaded again; each step is shown."""
    record = publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        path = "/models/some/PROD"
        absent = ModelStatus.model_validate((await pod.client.get(path)).json())
        assert (absent.id, absent.state) == (record.id, "absent")
        refused = await pod.client.get(f"{path}/ready")
        assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
        assert int(refused.headers["retry-after"]) >= 1
        report = (await pod.client.post(f"{path}/load")).json()
        assert (report["model"]["state"], report["server"], report["examples"]) == ("ready", "torchserve", 0)
        assert (await pod.client.get(f"{path}/ready")).json()["state"] == "ready"
        assert [model["id"] for model in (await pod.client.get("/models")).json()] == [record.id]
        assert (await pod.client.post(f"{path}/unload")).json()["state"] == "absent"
        assert pod.server.loaded == {}
        assert (await pod.client.get(f"{path}/ready")).status_code == 503
        assert (await pod.client.get("/models/some/9")).json()["code"] == "version_not_found"


async def test_a_version_that_is_loading_is_not_ready(registry: Registry, tmp_path: Path) -> None:
    """While a version loads its readiness says so and when to come back, and a load with a deadline ends at it."""
    publish(registry, tmp_path, "some", "1.0")
    server = FakeServer()
    server.may_load.clear()
    async with serving(registry, tmp_path, server=server) as pod:
        load = await pod.client.post("/models/some/1.0/load", headers={"x-request-timeout-ms": "100"})
        assert (load.status_code, load.json()["code"]) == (503, "model_loading")
        ready = await pod.client.get("/models/some/1.0/ready")
        assert (ready.status_code, ready.json()["code"]) == (503, "model_loading")
        assert int(ready.headers["retry-after"]) >= 1
        server.may_load.set()


async def test_a_deleted_version_is_refused_and_unloaded(registry: Registry, tmp_path: Path) -> None:
    """A deleted version is refused once its state was read again, and given back without anybody asking for that."""
    publish(registry, tmp_path, "some", "1.0", label=None)
    publish(registry, tmp_path, "other", "1.0")
    async with serving(registry, tmp_path, state_ttl_s=0.2, tombstone_check_s=300) as pod:
        assert (await pod.predict("some/1.0")).status_code == 200
        assert (await pod.predict("other")).status_code == 200
        registry.delete("some", "1.0", by="test")
        for _ in range(200):
            answer = await pod.predict("some/1.0")
            if answer.status_code != 200:
                break
            await asyncio.sleep(0.02)
        assert (answer.status_code, answer.json()["code"]) == (404, "version_not_found")
        await until(lambda: len(pod.server.loaded) == 1)
        assert (await pod.predict("other")).status_code == 200


async def test_a_deleted_version_that_nobody_asks_for_is_unloaded(registry: Registry, tmp_path: Path) -> None:
    """A deleted version is found when its turn to be checked comes."""
    publish(registry, tmp_path, "some", "1.0", label=None)
    async with serving(registry, tmp_path, state_ttl_s=0.1, tombstone_check_s=0.2) as pod:
        assert (await pod.predict("some/1.0")).status_code == 200
        registry.delete("some", "1.0", by="test")
        await until(lambda: not pod.server.loaded)


async def test_health(registry: Registry, tmp_path: Path) -> None:
    """A pod is ready with a model server and without a drain; the process is well in any case."""
    async with serving(registry, tmp_path) as pod:
        assert (await pod.client.get("/readyz")).json() == {"status": "ok"}
        pod.sidecar.pool.attach(None)
        down = await pod.client.get("/readyz")
        assert (down.status_code, down.json()["code"]) == (503, "runtime_down")
        assert "retry-after" in down.headers
        assert not PodStatus.model_validate((await pod.client.get("/status")).json()).ready
        assert (await pod.client.get("/healthz")).json() == {"status": "ok"}
        for path, status, code in (("/nothing", 404, "not_found"), ("/drain", 405, "method_not_allowed")):
            answer = await pod.client.get(path)
            assert (answer.status_code, answer.json()["code"]) == (status, code)


async def test_a_drain_is_begun_and_taken_back(registry: Registry, tmp_path: Path) -> None:
    """A drained pod is not ready and refuses requests as not accepted; taken back, it serves again."""
    publish(registry, tmp_path, "some", "1.0")
    async with serving(registry, tmp_path) as pod:
        assert (await pod.predict("some")).status_code == 200
        assert (await pod.client.post("/drain")).json()["draining"] is True
        assert (await pod.client.get("/readyz")).json()["code"] == "draining"
        refused = await pod.predict("some")
        assert (refused.status_code, refused.headers["x-marway-outcome"]) == (503, "not_accepted")
        assert refused.headers["connection"] == "close"
        assert (await pod.client.post("/models/some/1.0/load")).json()["code"] == "draining"
        assert (await pod.client.delete("/drain")).json()["draining"] is False
        assert (await pod.predict("some")).status_code == 200
        pod.sidecar.draining.stop()
        assert (await pod.client.delete("/drain")).status_code == 409


async def test_every_route_is_documented(registry: Registry, tmp_path: Path) -> None:
    """The OpenAPI document has every route of the contract, types its answers and shows its problems by example."""
    async with serving(registry, tmp_path) as pod:
        document = (await pod.client.get("/openapi.json")).json()
    assert {(method, path) for path, item in document["paths"].items() for method in item} == {
        ("post", "/predict/{model}"),
        ("post", "/predict/{model}/{selector}"),
        ("get", "/status"),
        ("get", "/watch"),
        ("get", "/models"),
        ("get", "/models/{model}/{selector}"),
        ("get", "/models/{model}/{selector}/log"),
        ("get", "/models/{model}/{selector}/ready"),
        ("post", "/models/{model}/{selector}/load"),
        ("post", "/models/{model}/{selector}/compare"),
        ("post", "/models/{model}/{selector}/unload"),
        ("post", "/drain"),
        ("delete", "/drain"),
        ("get", "/"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    }
    for item in document["paths"].values():
        for operation in item.values():
            assert operation["summary"]
            assert operation["tags"]
            assert {"400", "403", "408", "421", "431"} <= operation["responses"].keys()  # of any request
            for status, response in operation["responses"].items():
                for content in response["content"].values():
                    assert content.get("schema") or content.get("examples"), operation["summary"]
                    assert int(status) < 400 or content["examples"], operation["summary"]
    watch = document["paths"]["/watch"]["get"]["responses"]["200"]["content"]["application/x-ndjson"]
    assert watch["schema"] == {"$ref": "#/components/schemas/PodEvent"}
    assert [json.loads(line) for line in watch["example"].splitlines()][-1] == {}


def test_one_reader_of_request_headers() -> None:
    """Ids and trace that cannot be passed on safely count as absent; a deadline that cannot be read is refused."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    said = read_ids({"x-request-id": "r-1", "x-request-group-id": "g", "traceparent": trace}.get)
    assert (said.request_id, said.group_id, said.traceparent) == ("r-1", "g", trace)
    made = read_ids({"x-request-id": "a b", "x-request-group-id": "x" * 129, "traceparent": "00"}.get)
    assert (len(made.request_id), made.group_id, made.traceparent) == (32, None, None)
    assert new_request_id() != new_request_id()
    assert timeout_of(None, default_s=60, max_s=10) == 10
    assert timeout_of("1500", default_s=60, max_s=10) == 1.5
    assert timeout_of("999999", default_s=60, max_s=10) == 10
    for text in ("", "0", "-1", "1.5", "soon", "١", "1" * 13):
        with pytest.raises(InvalidRequest, match="milliseconds"):
            timeout_of(text, default_s=60, max_s=10)
