"""Predictions of many rows: one predict call carries all rows of a request, and brings back all answers.

The surfaces that speak of tensors and instances share this, over REST and gRPC: find the version, turn what the caller
sent into rows by its signature, ask, and turn the answers back.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from marway.errors import BodyTooLarge, MarwayError
from marway.resolve.resolved import alike
from marway.wire.envelope import ROWS_CONTENT_TYPE, mime_type
from marway.wire.headers import EXPLAIN, SEQUENCE_ID
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.requests import request_info, send_whole
from marway_gateway.observe.open_inference_json import media_type
from marway_gateway.predict.call import Answer, PredictCall, shaped
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.surfaces.http_call import http_call
from marway_http.channel import CHANNEL, Channel, HeaderBlock, header_block
from marway_http.tensors.requests import ReadRequest, Rendered, prepare, rendered
from marway_http.tensors.rows import JSON, OCTETS

__all__ = ["RowRoute", "Sent", "predict_rows"]

Sent = tuple[int, HeaderBlock, bytes]
"""Status, headers and body of an answer."""

_HEADER_LENGTH: Final = b"inference-header-content-length"
_NOT_OF_ROWS: Final = frozenset({"content-type", "accept"})


class RowRoute:
    """ASGI app of one protocol's predict routes, whose path names `model` and perhaps `selector` or `label`.

    Args:
        gateway: Gives the gateway, which exists only while the app runs.
        surface: The protocol's name, which decides the form of errors.
        read: Reads its requests.
        explain: Whether handlers are asked to explain their predictions.
    """

    def __init__(
        self, gateway: Callable[[], Gateway], *, surface: str, read: ReadRequest, explain: bool = False
    ) -> None:
        self._gateway = gateway
        self._surface = surface
        self._observed = not explain
        self._read = read
        self._more_headers = {EXPLAIN: "1"} if explain else {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        gateway.telemetry.predicting(info, self._surface, observed=self._observed)
        limit = gateway.settings.max_body_bytes
        call = http_call(scope, receive, gateway.settings, more_headers=self._more_headers, buffered_bytes=limit)
        length = info.headers.get(_HEADER_LENGTH)
        header_length = None if length is None else length.decode("latin-1")
        # Whatever the request says of itself: curl calls what it sends a form.
        info.input_media = JSON if header_length is None else media_type(OCTETS, header_length)
        with gateway.predictor.scope(call, channel) as cancel_scope:
            answer = partial(self.answer, gateway, call, cancel_scope, header_length, send)
            sent = await shaped(answer)
        if sent is not None:
            await send_whole(channel, info, *sent)

    async def answer(
        self, gateway: Gateway, call: PredictCall, cancel_scope: CancelScope, header_length: str | None, send: Send
    ) -> Sent | None:
        """Return what answers a call; None where it was sent already.

        Raises:
            MarwayError: As `predict_rows`.
        """
        data, content = await predict_rows(gateway, call, cancel_scope, self._read, header_length)
        return 200, header_block([(name.encode(), value.encode()) for name, value in content]), data


async def predict_rows(
    gateway: Gateway, call: PredictCall, cancel_scope: CancelScope, read: ReadRequest, header_length: str | None = None
) -> Rendered:
    """Return the answer to a request of rows.

    Args:
        gateway: Its parts.
        call: The call, with the request's own body, in the place of which its rows go to the pod.
        cancel_scope: The call's; the request may ask for an earlier deadline.
        read: Reads its protocol.
        header_length: As `ReadRequest` has it.

    Raises:
        InvalidReference, NotFound: There is no such version.
        InvalidRequest: As ``read``.
        BodyTooLarge: The body is over the limit, or the rows are on their way to the pod.
        ModelError: The handler refused a row or failed on it.
        MarwayError: As `Predictor.predict`.
    """
    info, predictor, convert = call.info, gateway.predictor, gateway.converters.run
    cancel_scope.step = "its model was not found yet"
    # What the rows are made for is what is asked then, also when a label moves meanwhile.
    resolved = call.resolved or await predictor.resolve(call)
    cancel_scope.step = "its body had not come whole"
    body = await call.whole_body()
    cancel_scope.step = "its body was not read yet"
    envelope, count, reading = await convert(len(body), prepare, read, body, header_length, resolved)
    began_with = predictor.sequences.version_of(call, reading.sequence[SEQUENCE_ID]) if reading.sequence else None
    if began_with is not None and began_with.record.id != resolved.record.id and alike(began_with, resolved):
        resolved = began_with
        envelope, count, reading = await convert(len(body), prepare, read, body, header_length, resolved)
    deadline = call.deadline.within(reading.timeout_s)
    if deadline is not call.deadline:
        call.deadline = deadline
        cancel_scope.move_deadline()
    limit = gateway.settings.max_body_bytes
    if len(envelope) > limit:
        raise BodyTooLarge(
            f"the request's rows take {len(envelope)} bytes on their way to the model, numbers being JSON "
            f"there; this gateway accepts at most {limit} bytes: send fewer rows at once"
        )
    call.body = RequestBody.opened(envelope, max_bytes=limit)
    call.headers = {name: value for name, value in call.headers.items() if name not in _NOT_OF_ROWS}
    call.headers |= {"content-type": ROWS_CONTENT_TYPE, **reading.sequence}
    call.rendering = reading.render, count
    cancel_scope.step = None
    answer = await predictor.predict(call)
    data = await answer.whole(
        max_bytes=limit,
        too_large=f"the answers to the request's rows have more than {limit} bytes: send fewer rows at once",
    )
    if not _are_answers(answer):
        raise MarwayError(f"pod {info.pod} does not know requests of many rows: is it older than this gateway?")
    cancel_scope.step = "its answer was not written yet"
    return await convert(len(data), rendered, reading.render, data, count, resolved.record)


def _are_answers(answer: Answer) -> bool:
    kinds = [value.decode("latin-1") for name, value in answer.reply.headers if name == b"content-type"]
    return [mime_type(kind) for kind in kinds] == [ROWS_CONTENT_TYPE]
