"""Inference requests that come as messages: as rows for handlers, as they are for servers that take tensors."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any, Final

from marway.errors import InvalidRequest, ModelError, Unimplemented, clip
from marway_gateway.gateway import Gateway
from marway_gateway.observe.open_inference_json import REQUEST_MESSAGE, RESPONSE_MESSAGE
from marway_gateway.predict.call import Answer, CandidateLost
from marway_gateway.surfaces.grpc.call import DETAILS_MAX, GrpcCall
from marway_gateway.surfaces.open_inference.passing import check_passed, passes
from marway_http.message_fields import text_fields
from marway_http.proto import open_inference_pb2 as pb
from marway_http.tensors.rows import OCTETS
from marway_http.tensors.v2_protobuf import read_message
from marway_http.tensors.v2_to_message import HEADER_LENGTH, message_of_piece, message_of_response
from marway_http.tensors.v2_to_rest import rest_of_request, unread_bytes

__all__ = ["infer", "infer_pieces"]

_FIELDS: Final = pb.ModelInferRequest.DESCRIPTOR.fields_by_name
_NAMES: Final = (_FIELDS["model_name"].number, _FIELDS["model_version"].number)
_RESPONSE_HEADERS: Final = b"content-type: %b\r\n" % RESPONSE_MESSAGE.encode()
_OF_STREAMS: Final = ("triton_enable_empty_final_response",)
"""Parameters that ask for what a single response has in any case; Triton refuses them outside its streams."""


async def infer(gateway: Gateway, call: GrpcCall, message: bytes) -> bytes:
    """Return the `ModelInferResponse` to a `ModelInferRequest`.

    Raises:
        Unimplemented: The version answers in pieces.
        MarwayError: As `GrpcCall.resolve`, `GrpcCall.predict_rows` and `GrpcCall.ask`.
    """
    responses = infer_pieces(gateway, call, message)
    try:
        response = await anext(responses, None)
        if response is None or await anext(responses, None) is not None:
            raise Unimplemented(
                "the version answers a request with any number of responses: call ModelStreamInfer, which gives them "
                "all",
                model=call.info.model,
                version=call.info.version,
            )
    finally:
        await responses.aclose()
    if isinstance(response, ModelError):
        raise response
    return response


async def infer_pieces(
    gateway: Gateway, call: GrpcCall, message: bytes, *, final: bytes = b""
) -> AsyncGenerator[bytes | ModelError, None]:
    """Yield each `ModelInferResponse` to a `ModelInferRequest`: one, or as many as a version that streams sends.

    One of several may be an error, behind which others follow.

    Args:
        gateway: Its parts.
        call: The call.
        message: The request.
        final: Fields that are added to a response that is the only one.

    Raises:
        MarwayError: As `GrpcCall.resolve`, `GrpcCall.predict_rows` and `GrpcCall.ask`.
    """
    for _ in range(3):
        with suppress(CandidateLost):  # before the first piece: see `shaped` in `predict.call`
            async with aclosing(_pieces(gateway, call, message, final)) as pieces:
                async for piece in pieces:
                    yield piece
            return


async def _pieces(
    gateway: Gateway, call: GrpcCall, message: bytes, final: bytes
) -> AsyncGenerator[bytes | ModelError, None]:
    name, version = text_fields(message, *_NAMES)
    if not name:
        raise InvalidRequest("model_name is empty: give a model's name or the id of a version")
    resolved = await call.resolve(name, version or None)
    if not passes(resolved.record):
        call.info.input_media = REQUEST_MESSAGE
        response, _ = await call.predict_rows(message, read_message)
        call.answered(response, _RESPONSE_HEADERS)
        yield response + final
        return
    convert = gateway.converters.run
    dropped = () if resolved.serving.streaming else _OF_STREAMS
    size = len(message) - unread_bytes(message)
    body, length, raw = await convert(size, rest_of_request, message, dropped=dropped)
    sequence = await convert(length, check_passed, body[:length])
    answer = await call.ask(body, {"content-type": OCTETS, HEADER_LENGTH: str(length)}, sequence=sequence)
    del body
    if answer.reply.status >= 400:
        raise _failure(await call.whole(answer), answer.reply.status, call)
    if not answer.in_pieces:
        data = await call.whole(answer)
        header_length = _header_length(answer)
        size = len(data) if header_length is None or not raw else header_length
        yield await convert(size, message_of_response, data, header_length, raw=raw) + final
        return
    call.info.bodies = "streamed"
    try:
        async for piece in answer.pieces(max_bytes=gateway.settings.max_body_bytes):
            size = len(piece.partition(b"\n")[0]) if raw else len(piece)
            try:
                part: bytes | ModelError = await convert(size, message_of_piece, piece, raw=raw)
            except ModelError as exc:
                part = exc
            yield part
    finally:
        answer.close()


def _header_length(answer: Answer) -> int | None:
    name = HEADER_LENGTH.encode()
    return next((int(value) for each, value in answer.reply.headers if each == name and value.isdigit()), None)


def _failure(data: bytes, status: int, call: GrpcCall) -> ModelError:
    """Return the error that a server's answer stands for, in its own words."""
    text = data.decode(errors="replace")
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if isinstance(document, dict) and isinstance(document.get("error"), str):
        text = document["error"]
    return ModelError(clip(text, DETAILS_MAX), status=status, model=call.info.model, version=call.info.version)
