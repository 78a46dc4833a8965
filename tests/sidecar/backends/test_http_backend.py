"""The backend `http`: what goes to the server and comes back, what its failures mean, and which versions it has."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marway.deadline import Deadline
from marway.errors import (
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    LoadFailed,
    MarwayError,
    ModelError,
    Overloaded,
    RuntimeDown,
    Unavailable,
    Unimplemented,
)
from marway.wire.envelope import Answer, Part, Row
from marway_sidecar.backends.base import Busy, NotLoaded, NotSent, ServedModel, WorkerDied
from marway_sidecar.backends.http_server.addresses import UrlTemplate, checked_path, openai_call
from marway_sidecar.backends.http_server.server import HttpServer
from support.bundles import write_bundle
from support.http_model_server import HttpModelServer, http_backend, running
from support.registry import until


@pytest_asyncio.fixture
async def there() -> AsyncIterator[HttpModelServer]:
    async with running() as server:
        yield server


@asynccontextmanager
async def connected(**settings: object) -> AsyncIterator[HttpServer]:
    server = http_backend(**settings).connect()
    try:
        assert await server.is_same(timeout_s=5)
        yield server
    finally:
        await server.aclose()


def version(scratch: Path, name: str = "tiny", number: str = "1.0", **facts: Any) -> ServedModel:
    path = scratch / f"{name}-{number}.bundle"
    if not path.exists():
        write_bundle(path, "http", {"model.txt": b"x"}, name=name, version=number, **facts)
    return ServedModel(f"mv_{name}_{number}", name, number, path, 1, 1.0, 10.0)


def row(body: bytes = b"x", content_type: str | None = "text/plain", **headers: str) -> Row:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    if "url-path" in given:
        given["url_path"] = given.pop("url-path")
    if content_type is not None:
        given["content-type"] = content_type
    return Row("asked", [Part("data", body, content_type)], given)


async def ask(server: HttpServer, model: ServedModel, asked: Row, within_s: float = 10) -> Answer:
    (answer,) = await server.predict(model, [asked], Deadline.after(within_s))
    return answer


async def failure(server: HttpServer, model: ServedModel, asked: Row) -> MarwayError:
    with pytest.raises(MarwayError) as caught:
        await ask(server, model, asked)
    with pytest.raises(type(caught.value)):
        async with aclosing(server.predict_stream(model, asked, Deadline.after(10))) as pieces:
            _ = [piece async for piece in pieces]
    assert (caught.value.model, caught.value.version) == (model.name, model.version)
    return caught.value


async def test_a_request_and_its_answer_pass_as_they_are(there: HttpModelServer, tmp_path: Path) -> None:
    """Body, content type, headers and path reach the server; status, headers and body come back."""
    model = version(tmp_path)
    async with connected(
        http_predict=f"{there.url}/as-is/{{model}}/{{version}}/{{path}}",
        http_method="PUT",
        http_headers={"authorization": "Bearer key", "x-tenant": "ours"},
    ) as server:
        await server.load(model)
        asked = row(
            b"\x00\xff", "image/png", x_tenant="theirs", x_request_id="r1", connection="close", url_path="a b/c"
        )
        answer = await ask(server, model, asked)
        said = json.loads(answer.body)
        assert (answer.status, answer.kind, answer.content_type) == (201, "json", "application/json; charset=utf-8")
        assert {name: answer.headers[name] for name in ("X-Own", "Set-Cookie")} == {"X-Own": "1", "Set-Cookie": "a=b"}
        assert not {"Content-Length", "Server", "Date"} & set(answer.headers)
        assert (said["method"], said["path"], said["size"]) == ("PUT", "/as-is/tiny/1.0/a%20b/c", 2)
        headers = said["headers"]
        assert {"content-type": "image/png", "x-request-id": "r1", "x-tenant": "ours"}.items() <= headers.items()
        assert headers["authorization"] == "Bearer key"
        assert not {"accept-encoding", "user-agent", "url_path", "connection"} & set(headers)
        assert json.loads((await ask(server, model, row(b"x", None))).body)["path"] == "/as-is/tiny/1.0"
        assert "content-type" not in json.loads((await ask(server, model, row(b"x", None))).body)["headers"]


@pytest.mark.parametrize("declared", ["multipart/form-data; boundary=x", "application/x-www-form-urlencoded"])
async def test_a_form_stays_a_form(declared: str, there: HttpModelServer, tmp_path: Path) -> None:
    """The fields of a form, which the sidecar has read, are one of the same kind again."""
    model = version(tmp_path)
    async with connected(http_predict=f"{there.url}/as-is/{{version}}") as server:
        await server.load(model)
        parts = [Part('le"ft', b"1 & 2"), Part("right", b"[1]", None)]
        said = json.loads((await ask(server, model, Row("r", parts, {"content-type": declared}))).body)
        assert said["headers"]["content-type"].startswith(declared.partition(";")[0])
        assert {name.replace("%22", '"'): value for name, value in said["fields"].items()} == {
            'le"ft': "1 & 2",
            "right": "[1]",
        }


async def test_large_bodies_and_answers(there: HttpModelServer, tmp_path: Path) -> None:
    """A body of any size arrives; an answer that is larger than is taken whole is refused, and passes in pieces."""
    model = version(tmp_path)
    settings = {"http_predict": f"{there.url}/as-is/{{version}}", "http_max_answer_bytes": 50}
    async with connected(**settings) as server:
        await server.load(model)
        with pytest.raises(ModelError, match=r"more than 50 bytes, .*http_max_answer_bytes"):
            await ask(server, model, row(b"x"))
        pieces = [each async for each in server.predict_stream(model, row(b"y" * 3_000_000), Deadline.after(30))]
        assert json.loads(b"".join(piece.body for piece in pieces))["size"] == 3_000_000


@pytest.mark.parametrize(
    ("status", "kind", "told"),
    [
        (429, Busy, "takes no more now"),
        (503, Overloaded, "takes no more now"),
        (502, WorkerDied, "lost what it had given the request to"),
        (504, DeadlineExceeded, "gave the request up"),
        (500, ModelError, "tiny 1.0 failed: the reason"),
        (599, ModelError, "failed"),
        (307, ModelError, "to ask http://elsewhere/: set http_predict to that"),
    ],
)
async def test_what_a_status_means(
    status: int, kind: type[MarwayError], told: str, there: HttpModelServer, tmp_path: Path
) -> None:
    """Each status that is no answer of the model's is the error of ours that it stands for, whole and in pieces."""
    model = version(tmp_path)
    async with connected(
        http_predict=f"{there.url}/status/{status}?v={{version}}",
    ) as server:
        await server.load(model)
        error = await failure(server, model, row(b'{"error": {"message": "the reason"}}', "application/json"))
        assert type(error) is kind
        assert told in error.message
        if isinstance(error, Overloaded):
            assert error.retry_after_s == 7
        if isinstance(error, ModelError):
            assert error.status == (502 if status == 307 else status)


@pytest.mark.parametrize("status", [200, 400, 404, 422])
async def test_other_answers_are_the_models_own(status: int, there: HttpModelServer, tmp_path: Path) -> None:
    """What the model says of a request that it does not like reaches the caller as it is."""
    model = version(tmp_path)
    async with connected(http_predict=f"{there.url}/status/{status}?v={{version}}") as server:
        await server.load(model)
        answer = await ask(server, model, row(b"no", "text/plain"))
        assert (answer.status, answer.body, answer.kind) == (status, b"no", "text")
        (piece,) = [each async for each in server.predict_stream(model, row(b"no"), Deadline.after(5))]
        assert (piece.status, piece.body) == (status, b"no")


async def test_a_server_that_is_away_and_one_that_goes(there: HttpModelServer, tmp_path: Path) -> None:
    """Without a connection nothing was sent; one that ends in the middle took the request with it."""
    model = version(tmp_path)
    async with connected(http_predict=f"{there.url}/models/{{server_name}}/predict") as server:
        await server.load(model)
        there.loaded[model.server_name] = "1.0"
        assert isinstance(await failure(server, model, row(b"die")), WorkerDied)
        gate = tmp_path / "never"
        async with aclosing(server.predict_stream(model, row(f"pieces {gate}".encode()), Deadline.after(10))) as pieces:
            assert (await anext(pieces)).content_type == "text/event-stream"
            await there.stop()
            with pytest.raises(WorkerDied):
                await anext(pieces)
        assert isinstance(await failure(server, model, row(b"say x")), NotSent)
        with pytest.raises(RuntimeDown):
            await server.is_same(timeout_s=1)
        await server.aclose()
        assert type(await failure(server, model, row(b"say x"))) is RuntimeDown


async def test_who_waits_when_the_server_is_let_go_of(there: HttpModelServer, tmp_path: Path) -> None:
    """A call whose connection the sidecar closes itself is told that there is no server, not that it died."""
    model = version(tmp_path)
    async with connected(http_predict=f"{there.url}/models/{{server_name}}/predict") as server:
        await server.load(model)
        there.loaded[model.server_name] = "1.0"
        call = asyncio.ensure_future(ask(server, model, row(f"wait {tmp_path / 'never'}".encode())))
        await until(lambda: there.waiting == 1)
        await server.aclose()
        with pytest.raises(RuntimeDown, match="was let go of during the call"):
            await call


async def test_who_leaves_is_seen_by_the_server(there: HttpModelServer, tmp_path: Path) -> None:
    """A call that is cancelled, a stream that is left and a deadline that passes end the request at the server."""
    model, gate = version(tmp_path), tmp_path / "never"
    async with connected(http_predict=f"{there.url}/models/{{server_name}}/predict") as server:
        await server.load(model)
        there.loaded[model.server_name] = "1.0"
        call = asyncio.ensure_future(ask(server, model, row(f"wait {gate}".encode())))
        await asyncio.sleep(0.1)
        call.cancel()
        async with aclosing(server.predict_stream(model, row(f"pieces {gate}".encode()), Deadline.after(10))) as pieces:
            await anext(pieces)
        with pytest.raises(DeadlineExceeded):
            await ask(server, model, row(f"wait {gate}".encode()), within_s=0.1)
        async with asyncio.timeout(10):
            while there.left < 3:
                await asyncio.sleep(0.01)


async def test_what_cannot_be_asked_is_refused(there: HttpModelServer, tmp_path: Path) -> None:
    """An explanation, a path that leads elsewhere, one that nothing is at, and a header that is none."""
    model = version(tmp_path)
    async with connected(http_predict=f"{there.url}/as-is/{{version}}") as server:
        await server.load(model)
        for headers in ({"explain": "True"}, {"describe": "True"}):
            assert isinstance(await failure(server, model, Row("r", [Part("data", b"x")], headers)), Unimplemented)
        assert "no {path} in it" in (await failure(server, model, row(url_path="a"))).message
        assert "leads elsewhere" in (await failure(server, model, row(url_path="a/../b"))).message
        assert isinstance(await failure(server, model, row(x_bad="a\nb")), InvalidRequest)


# --- which versions it has ---


async def test_a_server_says_what_it_has(there: HttpModelServer, tmp_path: Path) -> None:
    """Of a server that loads nothing for us, a version that it does not have is for other pods."""
    model = version(tmp_path)
    async with connected(
        http_predict=f"{there.url}/models/{{server_name}}/predict",
        http_ready=f"{there.url}/models/{{server_name}}",
    ) as server:
        with pytest.raises(Unavailable, match=r"does not have tiny 1\.0: so it says at http://.*/models/mv_tiny_1\.0"):
            await server.load(model)
        there.loaded[model.server_name] = "1.0"
        assert (await server.load(model)).calls_per_worker == 32
        assert (await ask(server, model, row(b"say hello"))).body == b"hello"
        assert await server.is_same(timeout_s=5)
        there.loaded.clear()
        assert isinstance(await failure(server, model, row(b"say hello")), NotLoaded)
        assert await server.describe(model) is None
        assert not await server.is_same(timeout_s=5)


async def test_a_server_that_was_said_to_have_one_version(there: HttpModelServer, tmp_path: Path) -> None:
    """Where no URL tells versions apart, settings say which one it has, and others are for other pods."""
    async with connected(http_predict=f"{there.url}/as-is/x", http_serves="tiny/1.0") as server:
        await server.load(version(tmp_path))
        with pytest.raises(Unavailable, match=r"has tiny/1\.0 \(http_serves\), and not tiny 2\.0"):
            await server.load(version(tmp_path, number="2.0"))
    async with connected(http_predict=f"{there.url}/as-is/{{model}}", http_serves=["tiny/1.0", "other/1.0"]) as server:
        await server.load(version(tmp_path))
        await server.load(version(tmp_path, "other"))


async def test_what_cannot_be_loaded_is_told(there: HttpModelServer, tmp_path: Path) -> None:
    """A file that is no bundle, a bundle for others, and what the server would not load."""
    models = f"{there.url}/models/{{server_name}}"
    async with connected(
        http_predict=f"{models}/predict",
        http_ready=models,
        http_load=f"PUT {models}",
        http_unload=models,
        http_models=tmp_path / "models",
    ) as server:
        (tmp_path / "no.bundle").write_bytes(b"PK nothing")
        write_bundle(tmp_path / "other.bundle", "grpc-predictor")
        write_bundle(tmp_path / "empty.bundle", "http")
        for name, told in {
            "no": "cannot be loaded",
            "other": "is for the backend grpc-predictor, not http: pack it again",
            "empty": "answered with status 400: there is no model.txt",
        }.items():
            with pytest.raises(LoadFailed, match=told):
                await server.load(ServedModel(name, "tiny", "1.0", tmp_path / f"{name}.bundle", 1, 1.0, 10.0))
        assert [each.name for each in (tmp_path / "models").iterdir()] == [".marway"]
        (tmp_path / "models" / "mv_tiny_1.0").mkdir()
        with pytest.raises(LoadFailed, match=r"is in the way of tiny 1\.0, and not Marway's"):
            await server.load(version(tmp_path))
        assert (tmp_path / "models" / "mv_tiny_1.0").is_dir()


async def test_what_a_dead_sidecar_left(there: HttpModelServer, tmp_path: Path) -> None:
    """Its successor goes on with what the server still has, without loading it again, and removes other files."""
    models = f"{there.url}/models/{{server_name}}"
    settings = {
        "http_predict": f"{models}/predict",
        "http_ready": models,
        "http_load": f"PUT {models}",
        "http_unload": models,
        "http_models": tmp_path / "models",
    }
    kept, lost = version(tmp_path), version(tmp_path, number="2.0")
    async with connected(**settings) as server:
        await server.load(kept)
        await server.load(lost)
    del there.loaded[lost.server_name]
    (tmp_path / "models" / ".marway-unpacking-x").mkdir()
    (tmp_path / "models" / "somebody's").mkdir()
    async with connected(**settings) as server:
        assert (await server.status()).server_names == {kept.server_name}
        assert {each.name for each in (tmp_path / "models").iterdir()} == {".marway", kept.server_name, "somebody's"}
        await server.load(kept)
        assert there.loads == 2
        await server.unload(kept)
        assert there.loaded == {}
        assert {each.name for each in (tmp_path / "models").iterdir()} == {".marway", "somebody's"}


# --- OpenAI's API ---


async def test_calls_of_openais_api(there: HttpModelServer, tmp_path: Path) -> None:
    """Its four calls go to the server with its own name for the model, streams as they come, and no other path does."""
    model = version(tmp_path, server_model="other")
    body = b'{"model": "tiny/PROD", "messages": [{"content": "h\xc3\xa9"}], "stream": false, "n": 12345678901234567890}'
    async with connected(http_openai=f"{there.url}/v1/") as server:
        await server.load(model)
        for call in ("chat/completions", "completions", "embeddings", "responses"):
            said = json.loads(
                (await ask(server, model, row(body, "application/json", url_path=f"openai/v1/{call}"))).body
            )
            assert said["call"] == call
            assert said["asked"] == {**json.loads(body), "model": "other"}
        streamed = row(b'{"model": "x", "stream": true}', "application/json", url_path="openai/v1/completions")
        pieces = [piece async for piece in server.predict_stream(model, streamed, Deadline.after(10))]
        assert [piece.body for piece in pieces] == [
            b'data: {"model": "other", "word": "a"}\n\n',
            b'data: {"model": "other", "word": "b"}\n\n',
            b"data: [DONE]\n\n",
        ]
        assert {piece.content_type for piece in pieces} == {"text/event-stream"}
        for bad, path in ((b"[]", "completions"), (b"no", "completions"), (b"{}", "load_lora_adapter")):
            asked = row(bad, "application/json", url_path=f"openai/v1/{path}")
            assert isinstance(await failure(server, model, asked), InvalidRequest)
        assert "OpenAI's API alone" in (await failure(server, model, row(b"{}"))).message


async def test_what_openais_api_calls_a_version(there: HttpModelServer, tmp_path: Path) -> None:
    """The setting's name, the bundle's, the model's; what the server does not list is told with what it does."""
    openai = f"{there.url}/v1"
    path = "openai/v1/completions"
    async with connected(http_openai=openai) as server:
        with pytest.raises(Unavailable, match=r"no model 'absent', which absent 1\.0 is to be; it has tiny, other"):
            await server.load(version(tmp_path, "absent"))
        await server.load(version(tmp_path))
        with pytest.raises(Unavailable, match=r"tiny 2\.0 and tiny 1\.0 would be one model, 'tiny', to the server"):
            await server.load(version(tmp_path, number="2.0"))
        await server.load(version(tmp_path, number="3.0", server_model="other"))
        said = await ask(server, version(tmp_path), row(b"{}", url_path=path))
        assert json.loads(said.body)["asked"] == {"model": "tiny"}
        there.openai = []
        await server.load(version(tmp_path, "absent"))
    async with connected(http_openai=openai, http_openai_model="forced", http_serves="absent/1.0") as server:
        await server.load(version(tmp_path, "absent"))
        said = await ask(server, version(tmp_path, "absent"), row(b"{}", url_path=path))
        assert json.loads(said.body)["asked"] == {"model": "forced"}


# --- settings and addresses ---


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "needs http_predict, the URL of predictions"),
        ({"http_predict": "ftp://h/{version}"}, "http_predict has to be a URL such as"),
        ({"http_predict": "http://{model}/{version}"}, "http_predict has to be a URL such as"),
        ({"http_predict": "http://h/{name}"}, r"http_predict has \{name\} in it, .* known are \{model\}, \{path\}"),
        ({"http_predict": "http://h/predict"}, r"name in http_serves the one version that it has"),
        ({"http_predict": "http://h/p", "http_serves": "a"}, "name in http_serves the one version"),
        ({"http_predict": "http://h/p", "http_serves": "a/1,b/1"}, "name in http_serves the one version"),
        ({"http_predict": "http://h/{model}", "http_serves": "a/1,a/2"}, "one version of each model"),
        ({"http_openai": "http://h/v1", "http_openai_model": "m"}, "http_openai_model is one model"),
        ({"http_predict": "http://h/{version}", "http_openai_model": "m"}, "http_openai is missing"),
        ({"http_predict": "http://h/{version}", "http_ready": "http://h/"}, "http_ready says whether"),
        ({"http_predict": "http://h/{version}", "http_load": "http://h/"}, "http_unload and http_ready is missing"),
        ({"http_predict": "http://h/{version}", "http_models": "/m"}, "the server is not told of them"),
        ({"http_predict": "http://h/{version}", "http_health": "http://h/{model}"}, "http_health has {model} in it"),
    ],
)
def test_settings_that_do_not_do(settings: dict[str, object], told: str) -> None:
    """What is missing, or does not go together, is named with what to do."""
    with pytest.raises(InvalidSettings, match=told):
        http_backend(**settings)


def test_urls_are_quoted() -> None:
    """What stands for a name is quoted; a path keeps its slashes, and an empty one leaves none behind."""
    template = UrlTemplate.parse(
        "http_predict",
        "put http://h:1/{model}/{path}?v={version}",
        method="POST",
        names=frozenset({"model", "path", "version"}),
    )
    assert template.method == "PUT"
    asked = template.url({"model": "a/b", "version": "1.0+x&y", "path": "c d/é"})
    assert str(asked) == "http://h:1/a%2Fb/c%20d/%C3%A9?v=1.0%2Bx%26y"
    assert str(template.url({"model": "a", "version": "1", "path": ""})) == "http://h:1/a?v=1"


def test_paths_of_callers() -> None:
    """A path that leads out of where it begins is refused; OpenAI's calls are known by theirs."""
    assert [checked_path(path) for path in ("", "/a/b/", "a")] == ["", "a/b", "a"]
    for path in ("..", "a/../b", "./a", "a//b", "a\\b"):
        with pytest.raises(InvalidRequest, match="leads elsewhere"):
            checked_path(path)
    assert openai_call("openai/v1/responses") == "responses"
    assert openai_call("predict") is None


def test_it_says_what_is_the_matter() -> None:
    """Without an answer the pod says where it asked."""
    backend = http_backend(http_predict="http://127.0.0.1:1/{version}")
    assert backend.trouble(found=True) == "the model server does not answer at http://127.0.0.1:1"
