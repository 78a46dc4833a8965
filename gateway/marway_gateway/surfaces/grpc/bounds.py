"""Messages over gRPC are bounded before they are parsed: parsing happens on the event loop, and costs by their fields.

A message of 16 MB can hold eight million empty inputs, which take seconds and a gigabyte to parse. So its outermost
fields are counted first, in as many steps; what is within the inputs of a `ModelInfer` is parsed elsewhere.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Container, Iterator
from typing import Any, Final, cast

import grpc.aio
from google.protobuf.message import DecodeError

from marway.errors import InvalidRequest

Context = grpc.aio.ServicerContext[Any, Any]

__all__ = ["FIELDS_MAX", "FieldBound", "check_fields", "text_fields"]

FIELDS_MAX: Final = 10_000
"""Most outermost fields of a message: inputs, outputs, parameters, binary contents together."""
_SMALL_BYTES: Final = 4096
"""No message of this size has more, or is worth looking at."""
_KINDS: Final[dict[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}
"""What makes a handler, by whether its requests and its answers stream."""
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


class FieldBound(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # generic in the stubs only
    """Refuses messages that have more than `FIELDS_MAX` outermost fields, or that are none, as the caller's fault.

    Args:
        unparsed: Full names of methods that are given their messages as bytes, and give bytes.
    """

    def __init__(self, *, unparsed: Container[str]) -> None:
        self._unparsed = unparsed

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        """Put the check before the parsing of every method's messages."""
        handler: Any = await continuation(handler_call_details)
        if handler is None:
            return cast("grpc.RpcMethodHandler[Any, Any]", handler)
        if handler_call_details.method in self._unparsed:
            return grpc.unary_unary_rpc_method_handler(handler.unary_unary)
        parse = handler.request_deserializer

        async def checked(data: bytes, context: Context) -> Any:
            try:
                check_fields(data)
                return data if parse is None else parse(data)
            except InvalidRequest as exc:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, exc.message)
            except DecodeError:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message cannot be parsed")

        async def each(stream: AsyncIterator[bytes], context: Context) -> AsyncIterator[Any]:
            async for data in stream:
                yield await checked(data, context)

        async def given(sent: Any, context: Context) -> Any:
            return each(sent, context) if handler.request_streaming else await checked(sent, context)

        answers = _method_of(handler)

        async def one(sent: Any, context: Context) -> Any:
            return await answers(await given(sent, context), context)

        async def many(sent: Any, context: Context) -> Any:
            async for answer in answers(await given(sent, context), context):
                yield answer

        kind = _KINDS[bool(handler.request_streaming), bool(handler.response_streaming)]
        # A method that streams either yields its answers or writes them, and returns nothing then.
        made = kind(many if inspect.isasyncgenfunction(answers) else one, None, handler.response_serializer)
        return cast("grpc.RpcMethodHandler[Any, Any]", made)


def _method_of(handler: Any) -> Callable[..., Any]:
    """Return the one method that a handler has."""
    methods: tuple[Callable[..., Any] | None, ...]
    methods = handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream
    return next(method for method in methods if method is not None)


def check_fields(data: bytes) -> None:
    """Return when a message has few enough outermost fields.

    Raises:
        InvalidRequest: It has too many, or is no message.
    """
    if len(data) > _SMALL_BYTES:
        for _ in _fields(data):
            pass


def text_fields(data: bytes, *numbers: int) -> tuple[str, ...]:
    """Return the texts of a message's outermost fields of these numbers; "" for one that is not there.

    Raises:
        InvalidRequest: It has too many fields, is no message, or one of them is no text.
    """
    found = dict.fromkeys(numbers, b"")
    for number, value in _fields(data):
        if number in found and value is not None:
            found[number] = bytes(value)
    try:
        return tuple(value.decode() for value in found.values())
    except UnicodeDecodeError:
        raise InvalidRequest("the message's model name or version is no text") from None


def _fields(data: bytes) -> Iterator[tuple[int, memoryview | None]]:
    """Yield number and value of each outermost field (protobuf's encoding); None for one that is no text or message."""
    view, at, count = memoryview(data), 0, 0
    while at < len(view):
        count += 1
        if count > FIELDS_MAX:
            raise InvalidRequest(f"the message has more than {FIELDS_MAX} fields: send less at once")
        tag, at = _varint(view, at)
        kind, value = tag & 7, None
        if kind == _VARINT:
            _, at = _varint(view, at)
        elif kind == _LENGTH:
            length, at = _varint(view, at)
            value, at = view[at : at + length], at + length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:  # groups, which no message here has
            raise InvalidRequest("the message cannot be parsed")
        if at > len(view):
            raise InvalidRequest("the message cannot be parsed: it is cut off")
        yield tag >> 3, value


def _varint(view: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            break
        byte = view[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise InvalidRequest("the message cannot be parsed")
