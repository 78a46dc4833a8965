"""The client for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, TypeVar

import httpx
from typing_extensions import Self, Unpack

from marway.client.answers import Answer, answer_of, error_of
from marway.client.attempts import GRACE_S, Attempts, failure_of
from marway.client.batching import OnError, in_threads
from marway.client.calls import (
    CONNECTIONS,
    Call,
    CallOptions,
    Target,
    feedback_call,
    get_call,
    model_path,
    predict_call,
    request_of,
)
from marway.client.catalogue import Model, ModelVersion, page_of, read_as
from marway.client.pieces import Event, accept_of
from marway.client.streams import AnswerStream
from marway.errors import MarwayError

__all__ = ["Client"]

T = TypeVar("T")


class Client:
    """Asks one gateway. Threads may share it; its connections are kept until `close`.

    Args:
        url: The gateway's public port, such as ``http://127.0.0.1:8000``, with any prefix of a proxy.
        api_key: A token; without one that of the environment (`MARWAY_TOKEN`, else of the file `MARWAY_TOKEN_FILE`).
        timeout_s: Deadline of a call in seconds, further tries and pauses included; each call may say another.
        retries: Further tries of a call at most; `marway.client.attempts` says when.
        headers: More headers for each call.
        http_client: Sends the requests in the place of our own: for certificates, proxies, Unix sockets. It is the
            caller's to close.

    Raises:
        InvalidSettings: The URL is none, or the token file cannot be read.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        retries: int = 2,
        headers: Mapping[str, str] | None = None,
        http_client: httpx.Client | None = None,
    ) -> None:
        self._target = Target.of(url, api_key, timeout_s=timeout_s, retries=retries, headers=headers)
        self._owned = http_client is None
        self._http = http_client or httpx.Client(**CONNECTIONS)
        self._build = request_of if http_client is None else http_client.build_request

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        if self._owned:
            self._http.close()

    def predict(
        self,
        model: str,
        value: object,
        label: str | None = None,
        version: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Ask a model, and return its answer: parsed JSON, text or bytes, by its content type.

        Args:
            model: Its name, which means the version at `PROD`; `MODEL/LABEL`, `MODEL/VERSION`; or the id of a version.
            value: The input: text, bytes, a `Path`, what JSON can say, an array of numpy, a tensor of torch, a picture
                of Pillow; `marway.client.values.body_of` says how each is sent.
            label: The label that is asked.
            version: The version that is asked.
            options: As `marway.client.calls.CallOptions` says.

        Raises:
            MarwayError: What went wrong, with `request_id`, `prediction_id` and `retry_after_s`.
        """
        return (self.predict_full(model, value, label, version, **options)).value

    def predict_full(
        self,
        model: str,
        value: object,
        label: str | None = None,
        version: str | None = None,
        **options: Unpack[CallOptions],
    ) -> Answer:
        """Ask a model as `predict`, and return the answer with its ids, version, headers and times."""
        return self._answer(predict_call(self._target, model, value, label, version, **options))

    def stream(
        self,
        model: str,
        value: object,
        label: str | None = None,
        version: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AnswerStream[str]:
        """Ask a model whose answer comes in pieces, and return what gives them as they come, as text.

        The arguments are those of `predict`; the deadline covers the answer to its last byte.
        """
        call = predict_call(self._target, model, value, label, version, accept=accept_of("text"), **options)
        return AnswerStream(call, "text", self._begun)

    def stream_bytes(
        self,
        model: str,
        value: object,
        label: str | None = None,
        version: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AnswerStream[bytes]:
        """Ask as `stream`, and return what gives the body's bytes as they come: for audio and the like."""
        call = predict_call(self._target, model, value, label, version, accept=accept_of("bytes"), **options)
        return AnswerStream(call, "bytes", self._begun)

    def stream_events(
        self,
        model: str,
        value: object,
        label: str | None = None,
        version: str | None = None,
        **options: Unpack[CallOptions],
    ) -> AnswerStream[Event]:
        """Ask as `stream`, and return what gives server-sent events: for handlers that write them themselves."""
        call = predict_call(self._target, model, value, label, version, accept=accept_of("events"), **options)
        return AnswerStream(call, "events", self._begun)

    def batch(
        self,
        model: str,
        values: Iterable[object],
        label: str | None = None,
        version: str | None = None,
        *,
        concurrency: int = 8,
        on_error: OnError = "raise",
        **options: Unpack[CallOptions],
    ) -> list[Any]:
        """Ask a model for each of many inputs, and return their answers in the same order.

        Args:
            model: As `predict`.
            values: The inputs; taken one by one as there is room.
            label: As `predict`.
            version: As `predict`.
            concurrency: How many are asked at the same time, each in a thread.
            on_error: `raise` the first error and ask no more; or `return` each in the place of its answer.
            options: As `predict`, for each input.

        Raises:
            MarwayError: The first, unless errors are returned.
        """

        def ask(value: object) -> Any:
            return self.predict(model, value, label, version, **options)

        return in_threads(ask, values, concurrency=concurrency, on_error=on_error)

    def feedback(
        self,
        prediction_id: str | None = None,
        *,
        request_id: str | None = None,
        group_id: str | None = None,
        truth: Any = None,
        correct: bool | None = None,
        score: float | None = None,
        source: str | None = None,
        time: str | None = None,
        since: str | None = None,
        until: str | None = None,
    ) -> int:
        """Say what a prediction should have been, or how good it was; return how many entries are kept now: 1.

        One of the three ids is given, and one or more of ``truth``, ``correct`` and ``score``; docs/feedback.md says
        what each means. To send the same again does no harm.

        Raises:
            MarwayError: The gateway did not take it; nothing of it is kept.
        """
        entry = {name: value for name, value in locals().items() if name != "self"}
        return self.feedback_many([entry])

    def feedback_many(self, entries: Iterable[Mapping[str, Any]]) -> int:
        """Send up to 10,000 entries, each with the names of `feedback`'s arguments; all are kept, or none."""
        answer = (self._answer(feedback_call(self._target, entries))).value
        return int(answer["accepted"])

    def models(self) -> list[Model]:
        """Return all models in the order of their names, with labels and versions."""
        found: list[Model] = []
        after: str | None = ""
        while after is not None:
            query = {"limit": "1000", "next": after}
            page, after = page_of((self._answer(get_call(self._target, "/models", query=query))).value)
            found += page
        return found

    def model(self, name: str) -> Model:
        """Return one model, by its name or the id of one of its versions.

        Raises:
            ModelNotFound: There is none.
        """
        return read_as(Model, (self._answer(get_call(self._target, model_path(name)))).value)

    def version(self, model: str, version: str) -> ModelVersion:
        """Return a version of a model, by its name or a label's.

        Raises:
            NotFound: There is none.
        """
        path = model_path(model, version)
        return read_as(ModelVersion, (self._answer(get_call(self._target, path))).value)

    def _answer(self, call: Call) -> Answer:
        def whole(response: httpx.Response, attempts: Attempts) -> Answer:
            return answer_of(response, _read_whole(response, call), call, attempts=attempts.number)

        return self._run(call, whole)

    def _begun(self, call: Call) -> httpx.Response:
        """Return an answer that has begun, and is no error's."""

        def begun(response: httpx.Response, attempts: Attempts) -> httpx.Response:
            if response.status_code < 300:
                return response
            raise error_of(response, _read_whole(response, call), call, attempts=attempts.number)

        return self._run(call, begun)

    def _run(self, call: Call, receive: Callable[[httpx.Response, Attempts], T]) -> T:
        """Return what a call comes to, after as many tries as it takes."""
        attempts = Attempts(call, self._target.retries)
        while (done := self._attempt(attempts, receive)) is None:
            pass
        return done

    def _attempt(self, attempts: Attempts, receive: Callable[[httpx.Response, Attempts], T]) -> T | None:
        """Return what one try comes to; None after the pause before another."""
        call, (headers, timeout) = attempts.call, attempts.begin()
        request = self._build(call.method, call.url, content=call.body, headers=headers, timeout=timeout)
        try:
            try:
                return receive(self._http.send(request, stream=True), attempts)
            except (httpx.HTTPError, TimeoutError) as exc:
                raise failure_of(exc, call) from exc
        except MarwayError as exc:
            time.sleep(attempts.pause_s(exc))
            return None


def _read_whole(response: httpx.Response, call: Call) -> bytes:
    """Return the body of an answer, within the call's deadline."""
    pieces: list[bytes] = []
    try:
        for piece in response.iter_bytes():
            pieces.append(piece)
            if call.deadline.left_s() <= -GRACE_S:
                raise TimeoutError
    finally:
        response.close()
    return b"".join(pieces)
