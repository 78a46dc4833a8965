"""Both clients over a transport of ours, which answers as gateways and as what stands in front of them."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from marway import errors
from marway.client import Answer, AsyncClient, Client, ModelRefused
from marway.client.attempts import Attempts
from marway.client.calls import Target, predict_call
from marway.errors import MarwayError
from marway.wire.problems import problem_of

URL = "http://gateway.example:8000/ml/"
OK = httpx.Response(200, json={"label": "alarm"})
Ask = Callable[..., Any]


def refused(error: MarwayError) -> httpx.Response:
    problem, headers = problem_of(error, request_id="r-1")
    content_type = {"content-type": "application/problem+json", "x-request-id": "r-1", "x-prediction-id": "p-1"}
    return httpx.Response(problem.status, content=problem.body(), headers={**content_type, **headers})


class Gateway:
    """Answers each request with the next of what it was given, the last one for ever."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers) or [OK]
        self.requests: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return httpx.Response(answer.status_code, headers=answer.headers, content=answer.content)


@pytest.fixture(params=["blocking", "asyncio"])
def ask(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Calls a method of a client of each kind; pauses take no time and are noted in `ask.pauses`."""
    monkeypatch.delenv("MARWAY_TOKEN", raising=False)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("marway.client.blocking.time.sleep", pauses.append)
    monkeypatch.setattr("marway.client.asynchronous.anyio.sleep", sleep)

    def call(gateway: Gateway, method: str, *arguments: Any, client: dict[str, Any] | None = None, **more: Any) -> Any:
        transport = httpx.MockTransport(gateway)
        options = {"url": URL, **(client or {})}
        if request.param == "blocking":
            with httpx.Client(transport=transport) as http:
                return getattr(Client(**options, http_client=http), method)(*arguments, **more)

        async def asked() -> Any:
            async with httpx.AsyncClient(transport=transport) as http:
                return await getattr(AsyncClient(**options, http_client=http), method)(*arguments, **more)

        return asyncio.run(asked())

    call.pauses = pauses  # type: ignore[attr-defined]
    return call


def test_an_answer_and_what_is_known_of_it(ask: Ask) -> None:
    """A request says who asks, for what and how long it may take; the answer has value, ids, version and times."""
    sent = {
        "x-prediction-id": "p-7", "x-request-id": "r-7", "x-model-name": "intent", "x-model-version": "1.1",
        "server-timing": 'resolve;dur=0.1, pod;dur=2.5;desc="a", miss', "content-type": "text/plain; charset=latin-1",
    }  # fmt: skip
    gateway = Gateway(httpx.Response(200, content="ä".encode("latin-1"), headers=sent))
    options = {"headers": {"X-Own": "1"}, "timeout_s": 5, "request_id": "r-7", "group_id": "g", "priority": "batch"}
    answer: Answer = ask(gateway, "predict_full", "intent", "hi", label="STG", client={"api_key": "secret"}, **options)
    assert (answer.value, answer.status, answer.attempts) == ("ä", 200, 1)
    assert (answer.prediction_id, answer.request_id, answer.model, answer.version) == ("p-7", "r-7", "intent", "1.1")
    assert answer.timing == {"resolve": 0.1, "pod": 2.5}
    (request,) = gateway.requests
    assert str(request.url) == "http://gateway.example:8000/ml/predict/intent/STG"
    wanted = {
        "authorization": "Bearer secret", "content-type": "text/plain", "x-own": "1", "x-request-id": "r-7",
        "x-request-group-id": "g", "x-marway-priority": "batch",
    }  # fmt: skip
    assert wanted.items() <= dict(request.headers).items()
    assert 4000 < int(request.headers["x-request-timeout-ms"]) <= 5000


@pytest.mark.parametrize(
    ("content_type", "content", "value"),
    [
        ("application/json", b'{"a": 1}', {"a": 1}),
        ("application/vnd.own+json; charset=utf-8", b"[1]", [1]),
        ("text/html", "ä".encode(), "ä"),
        ("image/png", b"\x89", b"\x89"),
        (None, b"raw", b"raw"),
    ],
)
def test_values_by_content_type(ask: Ask, content_type: str | None, content: bytes, value: object) -> None:
    """Answers are parsed JSON, text or bytes, as their content type says."""
    headers = {} if content_type is None else {"content-type": content_type}
    assert ask(Gateway(httpx.Response(200, content=content, headers=headers)), "predict", "intent", "hi") == value


def test_an_answer_that_is_not_what_it_says(ask: Ask) -> None:
    """An answer that calls itself JSON and is none is an error with the ids of the request."""
    headers = {"content-type": "application/json", "x-prediction-id": "p-1"}
    with pytest.raises(MarwayError, match="says that it is application/json") as caught:
        ask(Gateway(httpx.Response(200, content=b"nonsense", headers=headers)), "predict", "intent", "hi")
    assert caught.value.prediction_id == "p-1"


@pytest.mark.parametrize(
    "error",
    [
        errors.ModelNotFound("no such model", model="intent"),
        errors.ModelError("KeyError: 'text'", status=503, model="intent", version="1"),
        errors.DeadlineExceeded("too late"),
        errors.LoadFailed("it does not load"),
        errors.Unauthenticated("a token is wanted"),
    ],
)
def test_what_says_something_about_the_request_is_never_tried_again(ask: Ask, error: MarwayError) -> None:
    """Such errors come as what they are, with the ids of the request, after one try."""
    gateway = Gateway(refused(error))
    with pytest.raises(type(error)) as caught:
        ask(gateway, "predict", "intent", "hi")
    assert len(gateway.requests) == 1
    assert (caught.value.request_id, caught.value.prediction_id) == ("r-1", "p-1")


@pytest.mark.parametrize("said", [{"why": "no text"}, {"error": "no text"}])
def test_a_models_own_words(ask: Ask, said: dict[str, str]) -> None:
    """An answer of the model's with an error's status is a `ModelRefused`, with all that it answered."""
    headers = {"x-model-name": "intent", "x-model-version": "1.0"}
    gateway = Gateway(httpx.Response(503, json=said, headers=headers))
    with pytest.raises(ModelRefused) as caught:
        ask(gateway, "predict", "intent", "hi")
    assert (caught.value.answer.value, caught.value.status, caught.value.version) == (said, 503, "1.0")
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    "failure",
    [
        refused(errors.Overloaded("full", retry_after_s=3)),
        refused(errors.Draining("stopping", retry_after_s=3)),
        httpx.Response(503, content=b"<html>", headers={"retry-after": "3"}),
    ],
)
def test_retry_after_is_honoured(ask: Ask, failure: httpx.Response) -> None:
    """429 and 503 are tried again after the pause that was asked for, under the same request id."""
    gateway = Gateway(failure, failure, OK)
    answer = ask(gateway, "predict_full", "intent", "hi")
    assert (answer.value, answer.attempts) == ({"label": "alarm"}, 3)
    assert all(3 <= pause <= 3.6 for pause in ask.pauses)  # type: ignore[attr-defined]
    assert len({each.headers["x-request-id"] for each in gateway.requests}) == 1


def test_no_pause_ends_after_the_deadline(ask: Ask) -> None:
    """Where the pause would last longer than the call may, its error comes at once."""
    gateway = Gateway(refused(errors.Overloaded("full", retry_after_s=30)))
    with pytest.raises(errors.Overloaded) as caught:
        ask(gateway, "predict", "intent", "hi", timeout_s=10)
    assert (len(gateway.requests), caught.value.retry_after_s) == (1, 30)


def test_no_more_tries_than_allowed(ask: Ask) -> None:
    """After so many retries the last error is the caller's."""
    gateway = Gateway(httpx.ConnectError("refused"))
    with pytest.raises(errors.Unavailable, match=r"no gateway answers at http://gateway\.example:8000: refused"):
        ask(gateway, "predict", "intent", "hi", client={"retries": 3})
    assert len(gateway.requests) == 4


def test_a_lost_connection(ask: Ask) -> None:
    """A lost answer is asked for again, but for a request of a sequence, whose state may have moved on."""
    lost = httpx.RemoteProtocolError("peer closed connection")
    assert ask(Gateway(lost, OK), "predict", "intent", "hi") == {"label": "alarm"}
    gateway = Gateway(lost, OK)
    with pytest.raises(errors.OutcomeUnknown):
        ask(gateway, "predict", "intent", "hi", headers={"TS_Request_Sequence_Id": "7"})
    assert len(gateway.requests) == 1


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        (httpx.Response(301, headers={"location": "https://gateway/"}), MarwayError, "leads to 'https://gateway/'"),
        (httpx.Response(413, content=b"<html>too large</html>"), errors.BodyTooLarge, "status 413"),
        (httpx.Response(404, json={"error": "no model"}), errors.NotFound, "no model"),
        (httpx.ReadTimeout("late"), errors.DeadlineExceeded, "within 7 s"),
    ],
)
def test_what_others_answer(ask: Ask, answer: httpx.Response, kind: type[MarwayError], said: str) -> None:
    """What proxies and other protocols answer becomes an error of the same tree."""
    with pytest.raises(kind, match=said) as caught:
        ask(Gateway(answer), "predict", "intent", "hi", timeout_s=7)
    assert caught.value.request_id is not None


@pytest.mark.parametrize(
    ("arguments", "more", "said"),
    [
        (("intent/PROD", "x", "STG"), {}, "PROD and STG"),
        (("intent", "x", "STG", "1.0"), {}, "STG and 1.0"),
        (("intent", "x", "stg"), {}, "did you mean 'STG'"),
        (("in tent", "x"), {}, "cannot be"),
        (("intent", ""), {}, "empty"),
        (("intent", "x"), {"headers": {"x": "a\nb"}}, "x cannot be sent"),
        (("intent", "x"), {"request_id": "ü"}, "request_id cannot be sent"),
        (("intent", "x"), {"priority": "high"}, "only 'batch'"),
        (("intent", "x"), {"timeout_s": 0}, "above 0"),
    ],
)
def test_what_makes_no_sense_is_not_sent(ask: Ask, arguments: Any, more: Any, said: str) -> None:
    """What no gateway could answer is refused here, and nothing is sent."""
    gateway = Gateway()
    with pytest.raises(errors.InvalidInput, match=said):
        ask(gateway, "predict", *arguments, **more)
    assert gateway.requests == []


def test_batches(ask: Ask) -> None:
    """Answers stand in the order of the inputs; an error stops the batch, or stands in its answer's place."""

    class Echo(Gateway):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            self.requests.append(request)
            row = json.loads(request.content)
            if row == 5:
                return refused(errors.ModelError("five", status=422))
            return httpx.Response(200, json=row)

    rows = ask(Echo(), "batch", "intent", iter(range(9)), concurrency=3, on_error="return")
    assert [row for row in rows if not isinstance(row, MarwayError)] == [0, 1, 2, 3, 4, 6, 7, 8]
    assert (str(rows[5]), rows[5].prediction_id) == ("five", "p-1")
    gateway = Echo()
    with pytest.raises(errors.ModelError, match="five"):
        ask(gateway, "batch", "intent", range(1000), concurrency=3)
    assert len(gateway.requests) < 20
    assert ask(Echo(), "batch", "intent", []) == []
    for values, more in (("text", {}), ([1], {"concurrency": 0}), ([1], {"on_error": "ignore"})):
        with pytest.raises(errors.InvalidInput):
            ask(Echo(), "batch", "intent", values, **more)

    def broken() -> Iterator[int]:
        yield 1
        raise OSError("the file of inputs is gone")

    with pytest.raises(OSError, match="is gone"):
        ask(Echo(), "batch", "intent", broken(), on_error="return")


def test_feedback(ask: Ask) -> None:
    """Feedback goes as one list, without what was not said."""
    gateway = Gateway(httpx.Response(202, json={"accepted": 1}))
    assert ask(gateway, "feedback", "p-1", truth="alarm", correct=False) == 1
    assert json.loads(gateway.requests[0].content) == [{"prediction_id": "p-1", "truth": "alarm", "correct": False}]
    with pytest.raises(errors.InvalidInput, match="no feedback"):
        ask(gateway, "feedback_many", [])


def test_lists_of_models_are_read_to_their_end(ask: Ask) -> None:
    """All pages of the list are one list."""
    pages = [{"models": [{"name": name}], "next": after} for name, after in (("a", "a"), ("b", None))]
    gateway = Gateway(*(httpx.Response(200, json=page) for page in pages))
    assert [each.name for each in ask(gateway, "models")] == ["a", "b"]
    assert [request.url.params["next"] for request in gateway.requests] == ["", "a"]
    for strange in ({"models": [{"nome": 1}]}, ["models"]):
        with pytest.raises(MarwayError):
            ask(Gateway(httpx.Response(200, json=strange)), "models")


@pytest.mark.parametrize("url", ["gateway:8000", "ftp://gateway", "http://", "http://a/?b=c", "http://[::1"])
def test_urls_that_are_none(url: str) -> None:
    """A URL under which no gateway can be is refused when the client is made."""
    with pytest.raises(errors.InvalidSettings, match="no URL"):
        Client(url)


def test_the_token_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment's token is taken where none is given, and no text of the client's shows it."""
    monkeypatch.setenv("MARWAY_TOKEN", "from-the-environment")
    target = Target.of("http://127.0.0.1:8000", None, timeout_s=1, retries=0, headers=None)
    assert target.headers["authorization"] == "Bearer from-the-environment"
    assert "from-the" not in repr(target)


@pytest.mark.parametrize(
    "answer",
    [httpx.ConnectError("refused"), httpx.Response(301, headers={"location": "/"}), httpx.Response(502, content=b"no")],
)
def test_a_password_of_the_url_is_not_shown(answer: httpx.Response | Exception) -> None:
    """No error names what stands before the host of a URL, nor does a target's text."""
    url = "http://ana:geheim@gateway.example:8000/ml"
    with Client(url, retries=0, http_client=httpx.Client(transport=httpx.MockTransport(Gateway(answer)))) as client:
        with pytest.raises(MarwayError, match=r"gateway\.example") as caught:
            client.predict("intent", "hi")
        assert "geheim" not in str(caught.value) + repr(client._target)


def test_a_proxys_502_to_a_sequence_is_not_tried_again(ask: Ask) -> None:
    """A proxy may have passed it on before: a sequence's state may have moved, anything else is asked again."""
    gateway = Gateway(httpx.Response(502, content=b"bad gateway"), OK)
    with pytest.raises(errors.OutcomeUnknown):
        ask(gateway, "predict", "intent", "hi", headers={"ts_request_sequence_id": "s-1"})
    assert len(gateway.requests) == 1
    assert ask(Gateway(httpx.Response(502), OK), "predict", "intent", "hi") == {"label": "alarm"}


def test_pauses_grow_and_are_bounded() -> None:
    """Without `Retry-After` pauses double by chance, up to two seconds."""
    target = Target.of("http://127.0.0.1:8000", "x", timeout_s=1000, retries=10, headers=None)
    attempts = Attempts(predict_call(target, "intent", "hi"), 10)
    pauses = []
    for _ in range(8):
        attempts.begin()
        pauses.append(attempts.pause_s(errors.Unavailable("gone")))
    assert 0.05 <= pauses[0] <= 0.1
    assert pauses[4] > pauses[0]
    assert max(pauses) <= 2


def test_an_answer_that_drips_ends_with_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer whose bytes keep coming is given up soon after the deadline, by either client."""
    for module in ("blocking", "asynchronous"):
        monkeypatch.setattr(f"marway.client.{module}.GRACE_S", 0.02)

    class Dripping(httpx.SyncByteStream, httpx.AsyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            while True:
                time.sleep(0.02)
                yield b"x"

        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.02)
                yield b"x"

    def drip(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, stream=Dripping())

    async def asked() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(drip)) as http:
            await AsyncClient(URL, http_client=http).predict("intent", "hi", timeout_s=0.01)

    failed: list[Exception] = []

    def wait() -> None:
        with httpx.Client(transport=httpx.MockTransport(drip)) as http:
            try:
                Client(URL, http_client=http).predict("intent", "hi", timeout_s=0.01)
            except errors.DeadlineExceeded as exc:
                failed.append(exc)

    beside = threading.Thread(target=wait)
    beside.start()
    with pytest.raises(errors.DeadlineExceeded, match=r"within 0\.01 s"):
        asyncio.run(asked())
    beside.join(10)
    assert len(failed) == 1
