"""An answer that comes in pieces, for each of the two clients."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from types import TracebackType
from typing import Generic, TypeVar

import anyio
import httpx
from typing_extensions import Self

from marway.client.answers import named
from marway.client.attempts import GRACE_S, failure_of
from marway.client.calls import Call
from marway.client.pieces import Pieces, reader_of
from marway.errors import MarwayError
from marway.wire import headers as wire

__all__ = ["AnswerStream", "AsyncAnswerStream"]

T = TypeVar("T")


class _Ids:
    """What is known of an answer once it has begun."""

    _call: Call
    _response: httpx.Response | None = None

    @property
    def headers(self) -> Mapping[str, str]:
        """The answer's headers; none before it has begun."""
        return httpx.Headers() if self._response is None else self._response.headers

    @property
    def prediction_id(self) -> str | None:
        """Which prediction it is; None before the answer has begun."""
        return self.headers.get(wire.PREDICTION_ID)

    @property
    def request_id(self) -> str | None:
        """Which request it answers; None before the answer has begun."""
        return self.headers.get(wire.REQUEST_ID)

    @property
    def model(self) -> str | None:
        """The model that answers; None before the answer has begun."""
        return self.headers.get(wire.MODEL_NAME)

    @property
    def version(self) -> str | None:
        """The version that answers; None before the answer has begun."""
        return self.headers.get(wire.MODEL_VERSION)

    def _broken(self, exc: Exception) -> MarwayError:
        """Return what ends an answer that had begun: never tried again, for the caller has some of it."""
        error = named(failure_of(exc, self._call), self._call, self.headers)
        error.retry_after_s = None
        return error


class AnswerStream(_Ids, Generic[T]):
    """The pieces of one answer, as they come; made by `Client.stream`.

    The request is sent with the first look at it, by iterating or by `with`. Who stops before the end leaves `with`, or
    calls `close`, and the gateway ends the work. Until the answer has begun, it is tried again as any call.

    Raises:
        MarwayError: While it is begun, or iterated: what went wrong, in the middle of the answer as well.
    """

    def __init__(self, call: Call, pieces: Pieces, opened: Callable[[Call], httpx.Response]) -> None:
        self._call = call
        self._kind: Pieces = pieces
        self._opened = opened
        self._pieces = self._read()

    def __enter__(self) -> Self:
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        return self._pieces

    def __next__(self) -> T:
        return next(self._pieces)

    def close(self) -> None:
        """End it, whether or not the answer has."""
        self._pieces.close()
        if self._response is not None:
            self._response.close()

    def _begin(self) -> httpx.Response:
        if self._response is None:
            self._response = self._opened(self._call)
        return self._response

    def _read(self) -> Generator[T, None, None]:
        response = self._begin()
        reader = reader_of(self._kind, response.headers.get("content-type", ""))
        try:
            for data in response.iter_bytes():
                yield from reader.feed(data)
                if self._call.deadline.left_s() <= -GRACE_S:
                    raise self._broken(TimeoutError())
            yield from reader.end()
        except httpx.TransportError as exc:
            raise self._broken(exc) from exc
        except MarwayError as exc:
            raise named(exc, self._call, self.headers) from exc.__cause__
        finally:
            response.close()


class AsyncAnswerStream(_Ids, Generic[T]):
    """The pieces of one answer, as they come; made by `AsyncClient.stream`, and otherwise as `AnswerStream`."""

    def __init__(self, call: Call, pieces: Pieces, opened: Callable[[Call], Awaitable[httpx.Response]]) -> None:
        self._call = call
        self._kind: Pieces = pieces
        self._opened = opened
        self._pieces = self._read()

    async def __aenter__(self) -> Self:
        await self._begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> AsyncIterator[T]:
        return self._pieces

    async def __anext__(self) -> T:
        return await self._pieces.__anext__()

    async def aclose(self) -> None:
        """End it, whether or not the answer has."""
        await self._pieces.aclose()
        if self._response is not None:
            await self._response.aclose()

    async def _begin(self) -> httpx.Response:
        if self._response is None:
            self._response = await self._opened(self._call)
        return self._response

    async def _read(self) -> AsyncGenerator[T, None]:
        response = await self._begin()
        reader = reader_of(self._kind, response.headers.get("content-type", ""))
        try:
            chunks = response.aiter_bytes()
            while True:
                # A scope for each look, not around all: between two of them the caller has the turn.
                with anyio.fail_after(max(0.0, self._call.deadline.left_s() + GRACE_S)):
                    data = await _next(chunks)
                if data is None:
                    break
                for piece in reader.feed(data):
                    yield piece
            for piece in reader.end():
                yield piece
        except (httpx.TransportError, TimeoutError) as exc:
            raise self._broken(exc) from exc
        except MarwayError as exc:
            raise named(exc, self._call, self.headers) from exc.__cause__
        finally:
            with anyio.CancelScope(shield=True):
                await response.aclose()


async def _next(chunks: AsyncIterator[bytes]) -> bytes | None:
    try:
        return await chunks.__anext__()
    except StopAsyncIteration:
        return None
