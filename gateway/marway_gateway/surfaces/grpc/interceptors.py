"""What stands before every gRPC method: a token is wanted, and messages are bounded before they are parsed.

Parsing happens on the event loop, and costs by a message's fields: one of 16 MB can hold eight million empty inputs,
which take seconds and a gigabyte. So its outermost fields are counted first, in as many steps; what is within the
inputs of a `ModelInfer` is parsed elsewhere.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Sequence
from contextvars import ContextVar
from typing import Any, Final, TypeAlias, cast

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health

from marway.errors import InvalidRequest, Unauthenticated
from marway_gateway.access.authentication import TokenFile, challenge, check_token
from marway_http.message_fields import fields_of

__all__ = ["FieldBound", "TokenInterceptor", "token_owner"]

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler]]"

_SMALL_BYTES: Final = 4096
"""No message of this size has more, or is worth looking at."""
_HEALTH: Final = f"/{health.SERVICE_NAME}/"
_KINDS: Final[dict[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""What makes a handler, by whether its requests and its answers stream."""


_owner: ContextVar[str | None] = ContextVar("owner of a call's token", default=None)


def token_owner() -> str | None:
    """Return the name of the token that the call being served came with, if it came with one that has a name."""
    return _owner.get()


class TokenInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs alone
    """Lets only calls with a token in their metadata through; health checks need none."""

    def __init__(self, tokens: TokenFile) -> None:
        self._tokens = tokens

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        handler: Any = await continuation(handler_call_details)
        if handler is None or handler_call_details.method.startswith(_HEALTH):  # None: no such method
            return cast("Handler", handler)
        metadata = cast("Sequence[tuple[str, str | bytes]] | None", handler_call_details.invocation_metadata)
        given = [str(value) for key, value in metadata or () if key == "authorization"]
        try:
            _owner.set(check_token(self._tokens.tokens, given))  # each call is served in a task of its own
        except Unauthenticated as exc:
            message = exc.message

            async def refuse(_: Any, context: Context) -> None:
                trailers = (("www-authenticate", challenge(given)),)
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, message, trailers)

            return _like(handler, refuse)
        return cast("Handler", handler)


class FieldBound(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses messages that have more than `FIELDS_MAX` outermost fields, or that are none, as the caller's fault.

    Args:
        unparsed: Full names of methods that are given their messages as bytes, and give bytes.
    """

    def __init__(self, *, unparsed: Container[str]) -> None:
        self._unparsed = unparsed

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> Handler:
        """Put the check before the parsing of every method's messages."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return cast("Handler", handler)
        methods = handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream
        method = next(each for each in methods if each is not None)
        if handler_call_details.method in self._unparsed:
            return _like(handler, method)
        parse = handler.request_deserializer

        async def checked(data: bytes, context: Context) -> Any:
            try:
                if len(data) > _SMALL_BYTES:
                    deque(fields_of(data), maxlen=0)
                return data if parse is None else parse(data)
            except InvalidRequest as exc:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, exc.message)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be parsed")

        async def each_checked(messages: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async for data in messages:
                yield await checked(data, context)

        async def parsed(sent: Any, context: Context) -> Any:
            return each_checked(sent, context) if handler.request_streaming else await checked(sent, context)

        async def answer(sent: Any, context: Context) -> Any:
            return await method(await parsed(sent, context), context)

        async def answers(sent: Any, context: Context) -> Any:
            async for message in method(await parsed(sent, context), context):
                yield message

        # A method that streams either yields its answers or writes them, and returns nothing then.
        return _like(handler, answers if inspect.isasyncgenfunction(method) else answer, handler.response_serializer)


def _like(handler: Any, method: Callable[..., Any], serializer: Callable[[Any], bytes] | None = None) -> Handler:
    """Return a handler of the same kind with another method, which gets its messages as bytes."""
    made = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)](method, None, serializer)
    return cast("Handler", made)
