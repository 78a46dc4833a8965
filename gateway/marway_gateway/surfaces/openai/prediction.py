"""The routes of OpenAI's API that ask a model: one ASGI app for each."""

from __future__ import annotations

from functools import partial
from typing import Final

from starlette.types import Receive, Scope, Send

from marway.resolve.resolved import Resolved
from marway.wire.headers import STREAM, URL_PATH
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.http.requests import request_info, send_whole
from marway_gateway.predict.call import PredictCall, shaped
from marway_gateway.predict.cancel_scope import CancelScope
from marway_gateway.surfaces.http_call import http_call
from marway_gateway.surfaces.openai.answers import Whole, answer_of
from marway_gateway.surfaces.openai.asked import Asked, counted_row, handlers_row, read_asked
from marway_gateway.surfaces.openai.embeddings import read_embeddings
from marway_gateway.surfaces.openai.errors import Refused, error_document
from marway_gateway.surfaces.openai.text_forms import ChatForm, CompletionForm, TextForm
from marway_gateway.surfaces.row_calls import predict_rows
from marway_http.channel import CHANNEL, Channel, header_block
from marway_http.tensors.requests import ReadRequest

__all__ = ["NAME", "OpenAIRoute"]

NAME: Final = "openai"
_SPEAKING: Final = frozenset({"http"})
"""Backends whose servers may speak OpenAI's API themselves."""
_FORMS: Final[dict[str, type[TextForm]]] = {"chat/completions": ChatForm, "completions": CompletionForm}
_WANTED: Final = {"chat/completions": "messages", "completions": "prompt"}
_ROWS: Final[dict[str, ReadRequest]] = {"embeddings": read_embeddings}
_JSON: Final = "application/json"


class OpenAIRoute:
    """ASGI app of one route.

    Args:
        gateway: Gives the gateway, which exists only while the app runs.
        path: What stands behind `/openai/v1/`.
    """

    def __init__(self, gateway: CurrentGateway, path: str) -> None:
        self._gateway = gateway
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gateway, info = self._gateway(), request_info(scope)
        channel: Channel = scope[CHANNEL]
        gateway.telemetry.predicting(info, NAME)
        info.input_media = _JSON
        limit = gateway.settings.max_body_bytes
        call = http_call(scope, receive, gateway.settings, more_headers={}, buffered_bytes=limit)
        try:
            with gateway.predictor.scope(call, channel) as cancel_scope:
                answer = partial(self._answer, gateway, call, cancel_scope, send)
                whole = await shaped(answer)
        except Refused as exc:
            info.failed(exc)
            status, document = error_document(exc)
            whole = Whole(status, header_block([(b"content-type", _JSON.encode())]), document)
        if whole is not None:
            await send_whole(channel, info, *whole)

    async def _answer(self, gateway: Gateway, call: PredictCall, cancel_scope: CancelScope, send: Send) -> Whole | None:
        """Return the answer, or None where it was streamed."""
        cancel_scope.step = "its body had not come whole"
        body = await call.whole_body()
        cancel_scope.step = "its body was not read yet"
        asked = await gateway.converters.run(len(body), read_asked, body)
        if call.info.fallback is None:  # else it is that one's, which the call names
            call.name, call.selector = asked.name, asked.selector
        cancel_scope.step = "its model was not found yet"
        resolved = await gateway.predictor.resolve(call)
        cancel_scope.step = None
        call.headers = {**call.headers, "content-type": _JSON}
        form: TextForm | None = None
        hides_count = False
        if resolved.record.backend in _SPEAKING:
            call.headers |= {URL_PATH: f"openai/v1/{self._path}"}
            # What /responses streams is counted in any case.
            hides_count = self._path in _FORMS and asked.stream and not asked.counted
            hides_count = hides_count and gateway.settings.openai_count_streams
            if hides_count:
                row = await gateway.converters.run(len(body), counted_row, body)
                call.body = RequestBody.of(row, max_bytes=gateway.settings.max_body_bytes)
        elif self._path in _ROWS:
            data, content = await predict_rows(gateway, call, cancel_scope, _ROWS[self._path])
            return Whole(200, header_block([(name.encode(), value.encode()) for name, value in content]), data)
        else:
            form = self._form(resolved, asked, call)
            row = await gateway.converters.run(len(body), handlers_row, body, resolved.record.name, _WANTED[self._path])
            call.body = RequestBody.of(row, max_bytes=gateway.settings.max_body_bytes)
            call.headers |= {URL_PATH: f"v1/{self._path}"}  # as TorchServe's own handler for vLLM looks for it
        if asked.stream:
            call.headers |= {STREAM: "1"}
            call.fresh = True
        answer = await gateway.predictor.predict(call)
        return await answer_of(
            answer,
            asked,
            form,
            hides_count=hides_count,
            convert=gateway.converters,
            cancel_scope=cancel_scope,
            send=send,
            max_bytes=gateway.settings.max_body_bytes,
        )

    def _form(self, resolved: Resolved, asked: Asked, call: PredictCall) -> TextForm:
        """Return the form of a handler's text.

        Raises:
            Refused: The version answers with no text.
        """
        record = resolved.record
        version = f"{record.name} {record.version}"
        if self._path not in _FORMS:
            raise Refused(
                f"{version} does not answer /{self._path}: only a model server that speaks OpenAI's API does, of the "
                f"backend http; its backend is {record.backend}",
                param="model",
            )
        if not resolved.serving.streaming:
            raise Refused(
                f"{version} does not answer /{self._path}: that takes a handler that streams text, whose serving "
                f"setting `streaming` is on, or the backend http; ask it with POST /predict/{record.name}",
                param="model",
            )
        return _FORMS[self._path](asked.model, call.info.request_id)
