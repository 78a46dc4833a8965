"""Predictions of a server that is asked over HTTP: whole answers, and answers in pieces as the server sends them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable

import aiohttp
from yarl import URL

from marway.deadline import Deadline
from marway.errors import InvalidRequest, MarwayError, clip
from marway.wire.envelope import Answer, Row
from marway_sidecar.backends.base import NotLoaded
from marway_sidecar.backends.http_server.addresses import PATH, Addresses, checked_path, openai_call
from marway_sidecar.backends.http_server.connection import Connection
from marway_sidecar.backends.http_server.errors import error_of_answer
from marway_sidecar.backends.http_server.lookups import Known
from marway_sidecar.backends.http_server.requests import Body, body_of, headers_of, kind_of, own_headers, with_model
from marway_sidecar.errors import about

__all__ = ["Predictions"]


class Predictions:
    """Asks one server for predictions.

    Args:
        addresses: Where.
        connection: To it.
        has: Says whether the server has a version, where it can.
        max_answer_bytes: Largest answer that is taken whole.
    """

    def __init__(
        self,
        addresses: Addresses,
        connection: Connection,
        has: Callable[[Known], Awaitable[bool | None]],
        *,
        max_answer_bytes: int,
    ) -> None:
        self._at = addresses
        self._connection = connection
        self._has = has
        self._max_answer_bytes = max_answer_bytes

    async def whole(self, version: Known, row: Row, deadline: Deadline) -> Answer:
        """Return the answer to a row; raises as `ModelServer.predict` does."""
        try:
            method, url, body = await self._asked(version, row)
            async with self._connection.answer(
                method, url, body=body, headers=headers_of(row), deadline=deadline
            ) as response:
                return await self._whole(version, response, deadline)
        except MarwayError as exc:
            about(version, exc)
            raise

    async def pieces(self, version: Known, row: Row, deadline: Deadline) -> AsyncGenerator[Answer, None]:
        """Yield the pieces of the answer to a row; raises as `ModelServer.predict_stream` does."""
        try:
            method, url, body = await self._asked(version, row)
            async with self._connection.answer(
                method, url, body=body, headers=headers_of(row), deadline=deadline
            ) as response:
                begun = False
                if response.status < 300:
                    async for piece in self._connection.pieces(response, deadline):
                        begun = True
                        yield _answer(response, piece)
                if not begun:  # what says that it went wrong is no stream, and neither is what is empty
                    yield await self._whole(version, response, deadline)
        except MarwayError as exc:
            about(version, exc)
            raise

    async def _asked(self, version: Known, row: Row) -> tuple[str, URL, Body]:
        """Return how a row is asked: the method, the URL and the body."""
        path, body = checked_path(row.headers.get("url_path", "")), body_of(row)
        if self._at.openai is not None and (call := openai_call(path)) is not None:
            url = URL(f"{self._at.openai}/{call}", encoded=True)
            return "POST", url, await with_model(body, version.openai_model)
        predict = self._at.predict
        if predict is None:
            message = f"the server of {version.title} has OpenAI's API alone: ask it at /openai/v1/chat/completions"
            raise InvalidRequest(message)
        if path and PATH not in predict.names:
            message = f"{version.title} has nothing at {clip(path, 80)!r}: http_predict has no {{path}} in it"
            raise InvalidRequest(message)
        return predict.method, predict.url({**version.values, PATH: path}), body

    async def _whole(self, version: Known, response: aiohttp.ClientResponse, deadline: Deadline) -> Answer:
        data = await self._connection.whole(response, deadline, limit=self._max_answer_bytes)
        if response.status == 404 and await self._has(version) is False:
            raise NotLoaded(f"the model server does not have {version.title} any more")
        error = error_of_answer(response.status, response.headers, data, version.title)
        if error is not None:
            raise error
        return _answer(response, data)


def _answer(response: aiohttp.ClientResponse, data: bytes) -> Answer:
    content_type = response.headers.get("Content-Type")
    return Answer(response.status, data, kind_of(content_type), content_type, own_headers(response.headers))
