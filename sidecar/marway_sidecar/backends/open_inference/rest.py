"""Over REST. Requests and answers go as they are; for a server that knows no binary tensors they become JSON."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import aiohttp

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, RuntimeDown, clip
from marway_http.tensors.v2_bodies import json_request
from marway_http.tensors.v2_parameters import OutputForms
from marway_http.tensors.v2_to_message import message_of_request, message_of_response
from marway_http.tensors.v2_to_rest import RestBody, piece_of_response, rest_of_response, with_names
from marway_sidecar.backends.base import NotSent
from marway_sidecar.backends.open_inference.classify import classify
from marway_sidecar.backends.open_inference.wire import (
    MANAGEMENT_TIMEOUT_S,
    Body,
    Configured,
    Indexed,
    Known,
    Refused,
    ServerFacts,
    Wire,
)
from marway_sidecar.errors import about

__all__ = ["RestWire"]

_LENGTH: Final = "Inference-Header-Content-Length"
_CONNECT_S: Final = 5.0
_IDLE_S: Final = 1.5
"""How long an idle connection is kept: less than any usual server does (uvicorn 5)."""
_BINARY: Final = b"binary_data"
"""In the JSON of a request that wants binary outputs."""
_EVENT: Final = b"data: "


class RestWire(Wire):
    """Calls over kept connections.

    Args:
        url: Base of the server's REST API.
    """

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._session = aiohttp.ClientSession(
            # How much is asked at once is the scheduler's matter; a limit here would be a queue that nobody sees.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_S),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("accept", "accept-encoding", "user-agent"),  # Triton compresses for who takes that
        )
        self._binary = True
        self._name = ""

    async def facts(self, *, timeout_s: float) -> ServerFacts:
        said = await self._json("GET", "/v2", timeout_s=timeout_s)
        facts = ServerFacts(
            str(said.get("name") or "unknown"), str(said.get("version") or ""), frozenset(said.get("extensions") or ())
        )
        self._binary, self._name = facts.binary, facts.name
        return facts

    async def index(self, *, timeout_s: float = MANAGEMENT_TIMEOUT_S) -> Mapping[str, Sequence[Indexed]]:
        found: dict[str, list[Indexed]] = defaultdict(list)
        for each in await self._json("POST", "/v2/repository/index", {}, timeout_s=timeout_s):
            entry = Indexed(each.get("version") or "", each.get("state") or "", each.get("reason") or "")
            found[each["name"]].append(entry)
        return found

    async def load(self, called: str, *, timeout_s: float) -> None:
        await self._ask("POST", f"/v2/repository/models/{quote(called)}/load", {}, timeout_s=timeout_s)

    async def unload(self, called: str) -> None:
        await self._ask("POST", f"/v2/repository/models/{quote(called)}/unload", {})

    async def metadata(self, called: str, number: str) -> Mapping[str, Any] | None:
        try:
            said: Mapping[str, Any] = await self._json("GET", _model(called, number))
        except Refused as exc:
            if exc.status in (400, 404, 503):
                return None
            raise
        return said

    async def configured(self, called: str, number: str) -> Configured:
        try:
            said = await self._json("GET", f"{_model(called, number)}/config")
        except Refused:
            return Configured()
        decoupled = bool((said.get("model_transaction_policy") or {}).get("decoupled"))
        instances = sum(int(each.get("count") or 1) for each in said.get("instance_group") or ())
        return Configured(decoupled, max(1, int(said.get("max_batch_size") or 0)), max(1, instances))

    async def infer(self, known: Known, request: Body, deadline: Deadline) -> RestBody:
        model = known.model
        sent, forms = self._sent(known, request)
        async with _call(known, deadline), self._post(f"{_model(known.called, known.number)}/infer", sent) as answer:
            body = await answer.read()
        if answer.status != 200:
            raise classify(answer.status, _error(body), model, called=known.called)
        length = answer.headers.get(_LENGTH)
        if forms is not None:
            message = message_of_response(body, int(length) if length else None, raw=True)
            return rest_of_response(message, forms, name=model.name, version=model.version)
        return with_names(body, int(length) if length else None, name=model.name, version=model.version)

    async def stream(self, known: Known, request: Body, deadline: Deadline) -> AsyncGenerator[bytes, None]:
        if self._name != "mlserver":  # which alone answers in pieces over REST in the protocol's words
            whole = await self.infer(known, request, deadline)
            if whole.header_length is None:
                yield whole.body + b"\n"
            else:
                yield b"\n".join((whole.body[: whole.header_length], whole.body[whole.header_length :]))
            return
        message, forms = _message(known, request)
        sent = Body(json_request(message), None)
        path = f"{_model(known.called, known.number)}/infer_stream"
        async with _call(known, deadline), self._post(path, sent) as answer:
            if answer.status != 200:
                raise classify(answer.status, _error(await answer.read()), known.model, called=known.called)
            async for line in answer.content:
                if line.startswith(_EVENT):
                    message = message_of_response(line[len(_EVENT) :], None, raw=True)
                    yield piece_of_response(message, forms, name=known.model.name, version=known.model.version)

    async def aclose(self) -> None:
        await self._session.close()

    def _sent(self, known: Known, request: Body) -> tuple[Body, OutputForms | None]:
        """Return a request as the server takes it, and in which form outputs go back if it knows only JSON."""
        if self._binary and request.header_length != 0:
            return request, None
        if request.header_length is None and _BINARY not in request.body:
            return request, None
        message, forms = _message(known, request)
        return Body(json_request(message), None), forms

    def _post(self, path: str, request: Body) -> Any:
        headers = {"content-type": "application/json"}
        if request.header_length is not None:
            headers = {"content-type": "application/octet-stream", _LENGTH: str(request.header_length)}
        if self._name == "mlserver":
            # It closes a connection after an exception of a model and does not say so: what comes next would be lost.
            headers["connection"] = "close"
        return self._session.post(f"{self._url}{path}", data=request.body, headers=headers)

    async def _json(self, method: str, path: str, document: Any = None, **options: float) -> Any:
        body = await self._ask(method, path, document, **options)
        try:
            return json.loads(body)
        except ValueError as exc:
            raise MarwayError(
                f"the model server's answer to {method} {path} is no JSON: {clip(str(exc), 100)}"
            ) from exc

    async def _ask(
        self, method: str, path: str, document: Any = None, *, timeout_s: float = MANAGEMENT_TIMEOUT_S
    ) -> bytes:
        try:
            async with asyncio.timeout(timeout_s):
                async with self._session.request(method, f"{self._url}{path}", json=document) as answer:
                    body = await answer.read()
        except aiohttp.ClientError as exc:
            raise _broken(exc) from exc
        except TimeoutError as exc:
            raise RuntimeDown(f"the model server does not answer {method} {path} within {timeout_s:g} s") from exc
        except (OSError, RuntimeError) as exc:
            raise _broken(exc) from exc
        if answer.status != 200:
            raise Refused(answer.status, _error(body))
        return body


@asynccontextmanager
async def _call(known: Known, deadline: Deadline) -> AsyncIterator[None]:
    """End a call at its deadline, and have what aiohttp raises be errors of ours."""
    model = known.model
    try:
        async with asyncio.timeout(deadline.time_left_s(model=model.name)):
            yield
    except (aiohttp.ClientError, OSError, TimeoutError, RuntimeError) as exc:
        if isinstance(exc, TimeoutError) and not isinstance(exc, aiohttp.ClientError):
            message = f"{model.name} {model.version} did not answer within the deadline"
            raise about(model, DeadlineExceeded(message)) from exc
        if isinstance(exc, RuntimeError) and "closed" not in str(exc).lower():
            raise
        raise about(model, _broken(exc)) from exc


def _broken(exc: BaseException) -> RuntimeDown:
    """Return what it means that a call broke; only one whose connection was not made reached nobody."""
    unsent = isinstance(exc, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError))
    return (NotSent if unsent else RuntimeDown)(f"the model server does not answer: {clip(str(exc) or repr(exc), 200)}")


def _message(known: Known, request: Body) -> tuple[bytes, OutputForms]:
    return message_of_request(
        request.body, request.header_length, name=known.called, version=known.number, signature=known.signature
    )


def _model(called: str, number: str) -> str:
    return f"/v2/models/{quote(called)}/versions/{quote(number)}" if number else f"/v2/models/{quote(called)}"


def _error(body: bytes) -> str:
    """Return the text of an error, as Triton and MLServer put it; FastAPI's lists say it in `detail`."""
    try:
        document = json.loads(body)
        said = document.get("error") or document.get("detail") or document
    except (ValueError, AttributeError):
        return clip(body.decode(errors="replace"), 500)
    return said if isinstance(said, str) else json.dumps(said)
