"""The port of `marway dev`: answers predictions as a gateway does, for one handler of no version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Final

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from marway.deadline import Deadline
from marway.errors import BodyTooLarge, InvalidRequest, MarwayError, ModelError, ModelNotFound, UnsupportedMedia
from marway.wire.envelope import Answer, Row
from marway.wire.headers import MODEL_NAME, MODEL_VERSION, REQUEST_ID, REQUEST_TIMEOUT_MS
from marway.wire.problems import problem_of
from marway.wire.request import RequestIds, read_ids, timeout_of
from marway_dev.files import VERSION
from marway_dev.serving import Served
from marway_sidecar.api.answers import BODILESS, fault_of
from marway_sidecar.api.call import row_of

__all__ = ["DevServer", "create_app"]

_BODY_BYTES_MAX: Final = 64 * 1024 * 1024
"""What a gateway takes, unless told otherwise."""
_TIMEOUT_MAX_S: Final = 3600.0
_CONTENT_TYPES: Final = {
    "json": "application/json",
    "text": "text/plain; charset=utf-8",
}
_PATHS: Final = (
    "/predict/{model}", "/predict/{model}/{selector}", "/predictions/{model}", "/predictions/{model}/{selector}",
)  # fmt: skip


class DevServer(uvicorn.Server):
    """Serves the port: uvicorn's own connections, as what a gateway's may cost and refuse is not tried here."""

    def __init__(self, served: Served) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(served),
                ws="none",
                loop="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                server_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to `marway.process.stop_request`."""
        yield


def create_app(served: Served) -> Starlette:
    """Return the application: `POST /predict/NAME` and TorchServe's `/predictions/NAME`, `GET /` and `/ping`."""

    async def predict(request: Request) -> Response:
        ids = read_ids(request.headers.get)
        try:
            if request.path_params["model"] != served.name:
                raise ModelNotFound(f"this is `marway dev` of the model {served.name}: ask /predict/{served.name}")
            return await _answer(served, request, ids)
        except MarwayError as exc:
            problem, headers = problem_of(exc, request_id=ids.request_id)
            headers |= {REQUEST_ID: ids.request_id}
            return Response(problem.body(), problem.status, headers, media_type="application/problem+json")

    async def about(_: Request) -> Response:
        return JSONResponse({"model": served.name, "version": VERSION, "predict": f"/predict/{served.name}"})

    async def ping(_: Request) -> Response:
        return JSONResponse({"status": "Healthy"})

    routes = [Route(path, predict, methods=["POST", "PUT"]) for path in _PATHS]
    return Starlette(routes=[Route("/", about), Route("/ping", ping), *routes])


async def _answer(served: Served, request: Request, ids: RequestIds) -> Response:
    asked = request.headers.get(REQUEST_TIMEOUT_MS)
    deadline = Deadline.after(timeout_of(asked, default_s=served.timeout_s, max_s=_TIMEOUT_MAX_S))
    body = await _body(request)
    row = row_of({name.lower(): value for name, value in request.headers.items()}, body, ids)
    worker = await served.worker(deadline)
    row = Row(row.request_id, row.parts, row.headers, True)
    pieces = worker.answers(row, deadline)
    try:
        first = await anext(pieces)
        following = asyncio.ensure_future(anext(pieces, None))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    except BaseException:
        await pieces.aclose()
        raise
    headers = _headers(first, served.name, ids)
    if following.done():
        # An answer that comes whole ends with its first piece, which is known by now; one in pieces goes on.
        second = following.result()
        if second is None:
            return Response(b"" if first.status in BODILESS else first.body, first.status, headers)
        return StreamingResponse(_pieces([first, second], pieces), first.status, headers)
    return StreamingResponse(_following(first, following, pieces), first.status, headers)


async def _following(
    first: Answer, second: asyncio.Future[Answer | None], pieces: AsyncGenerator[Answer, None]
) -> AsyncIterator[bytes]:
    yield first.body
    piece = await second
    if piece is not None:
        async for each in _pieces([piece], pieces):
            yield each


async def _pieces(begun: list[Answer], pieces: AsyncGenerator[Answer, None]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(pieces):
        for piece in begun:
            yield _sent(piece)
        async for piece in pieces:
            yield _sent(piece)


def _sent(piece: Answer) -> bytes:
    if piece.kind == "error":
        raise RuntimeError(piece.body.decode(errors="replace"))  # cuts the answer off, as a gateway does
    return piece.body


def _headers(answer: Answer, name: str, ids: RequestIds) -> dict[str, str]:
    """Return the headers of an answer.

    Raises:
        ModelError: The answer is a failure, or the handler set what cannot be sent.
    """
    if answer.kind == "error":
        status = answer.status if 400 <= answer.status <= 599 else 500
        raise ModelError(answer.body.decode(errors="replace"), status=status, model=name, version=VERSION)
    fault = fault_of(answer)
    if fault is not None:
        raise ModelError(fault, model=name, version=VERSION)
    own = {key.lower(): value for key, value in (answer.headers or {}).items() if key.lower() != "content-length"}
    kind = answer.content_type or _CONTENT_TYPES.get(answer.kind, "application/octet-stream")
    return {**own, "content-type": kind, MODEL_NAME: name, MODEL_VERSION: VERSION, REQUEST_ID: ids.request_id}


async def _body(request: Request) -> bytes:
    """Return the body of a request.

    Raises:
        BodyTooLarge, InvalidRequest, UnsupportedMedia: It cannot be a prediction's.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise UnsupportedMedia("`marway dev` takes no Content-Encoding, which gateways decode: send the body as it is")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _BODY_BYTES_MAX:
            raise BodyTooLarge(f"the body has more than {_BODY_BYTES_MAX} bytes: send less at once")
    if not body:
        raise InvalidRequest("the request has no body: send the model's input, such as curl -d 'some text' URL")
    return bytes(body)
