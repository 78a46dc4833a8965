"""The same archives and the same requests through TorchServe's own REST and through a Marway pod of each engine: equal.

Handlers say as JSON what they were given. Where the two differ on purpose, `docs/torchserve.md` says so, and a test.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from marway.registry import open_registry
from marway_archiver import publish, publish_archive
from support.gateways import GatewayProcess
from support.torchserve import StockTorchServe, archive, pod
from support.up import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

# What a request has from its client alone: TorchServe and the sidecar see different connections.
SEEN_HEADERS = ("content-type", "accept", "x-tenant", "explain", "url_path")

BOOK = '''
import json
from ts.torch_handler.base_handler import BaseHandler


class Book(BaseHandler):
    """The book's style: a subclass of BaseHandler in three steps, text or JSON in, JSON out."""

    def initialize(self, context):
        self.context = context
        self.initialized = True

    def preprocess(self, data):
        texts = []
        for row in data:
            given = row.get("data")
            if given is None:
                given = row.get("body")
            if isinstance(given, (bytes, bytearray)):
                given = given.decode("utf-8")
            if isinstance(given, dict):
                given = given["text"]
            texts.append(given)
        return texts

    def inference(self, data, *args, **kwargs):
        return [len(text.split()) for text in data]

    def postprocess(self, data):
        return [{"words": words, "label": "long" if words > 2 else "short"} for words in data]
'''
ONLY_BODY = '''
class OnlyBody:
    """Written for REST: knows the name `body` and no other."""

    def initialize(self, context):
        pass

    def handle(self, data, context):
        return [{"got": type(row["body"]).__name__, "there": "body" in row, "value": str(row["body"])} for row in data]
'''
ECHO = """
def shown(value):
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).decode("latin-1")}
    return value


def handle(data, context):
    if data is None:
        return None
    answers = []
    for index, row in enumerate(data):
        raw = row.get("data", row.get("body"))
        values = {name: [type(value).__name__, shown(value)] for name, value in row.items()}
        headers = {name.lower(): value for name, value in context.get_all_request_header(index).items()}
        if set(values) in ({"data"}, {"body"}) and "multipart" not in headers.get("content-type", ""):
            values = {"the body": [type(raw).__name__, shown(raw)]}
        answers.append(
            {
                "values": values,
                "headers": headers,
                "tenant": context.get_request_header(index, "X-Tenant"),
                "model": context.model_name,
                "rows": len(data),
                "has id": bool(context.get_request_id(index)),
            }
        )
    return answers
"""
ANSWERS = """
import numpy as np
import torch
from ts.utils.util import PredictionException


def handle(data, context):
    if data is None:
        return None
    return [answer(row.get("data") or row.get("body"), index, context) for index, row in enumerate(data)]


def answer(asked, index, context):
    if asked == "dict":
        return {"a": [1, 2.5, None, True, "ü"]}
    if asked == "list":
        return [1, {"b": 2}]
    if asked == "number":
        return 5
    if asked == "none":
        return None
    if asked == "text":
        return "plain ü"
    if asked == "bytes":
        return bytes(range(256))
    if asked == "bytearray":
        return bytearray(b"abc")
    if asked == "tensor":
        return torch.arange(6).reshape(2, 3)
    if asked == "empty":
        return ""
    if asked == "status":
        context.set_response_status(code=202, idx=index)
        return {"accepted": True}
    if asked == "client error":
        context.set_response_status(code=418, idx=index)
        context.set_response_content_type(index, "text/csv")
        return "a,b"
    if asked == "server error":
        context.set_response_status(code=503, idx=index)
        context.set_response_content_type(index, "application/json")
        return {"said": "by the handler"}
    if asked == "headers":
        context.set_response_header(index, "X-Model", "one")
        context.set_response_header(index, "Content-Type", "application/x-own; a=b")
        return b"own"
    if asked == "refuse":
        raise PredictionException("refused by the model", 422)
    if asked == "raise":
        raise ValueError("on purpose")
    if asked == "memory":
        raise MemoryError("on purpose")
    if asked == "not json":
        return {"score": 1j}
    if asked == "nan":
        return {"score": float("nan")}
    if asked == "numpy":
        return {"scores": np.array([0.5, 1.0], dtype="float32"), "best": np.int64(1), "labels": {"b", "a"}}
    raise AssertionError(asked)
"""
COUNTS = """
def handle(data, context):
    if data is None:
        return None
    asked = data[0].get("data") or data[0].get("body")
    return {"no": "list"} if asked == "no list" else ["one", "too many"]
"""
EXPLAINS = '''
from ts.torch_handler.base_handler import BaseHandler


class Explains(BaseHandler):
    """TorchServe's own way to explain: `handle` of BaseHandler asks for insights where the front end says so."""

    def initialize(self, context):
        self.context = context
        self.initialized = True

    def preprocess(self, data):
        return [self.text(row) for row in data]

    def inference(self, data, *args, **kwargs):
        return [len(text.split()) for text in data]

    def postprocess(self, data):
        return [{"words": words} for words in data]

    def get_insights(self, preprocessed, raw, target):
        text = raw if isinstance(raw, str) else bytes(raw).decode()
        headers = self.context.get_all_request_header(0)
        target = target if isinstance(target, int) else bytes(target).decode()
        return [{"insights": [len(word) for word in text.split()], "target": target, "explain": headers["explain"]}]

    @staticmethod
    def text(row):
        given = row.get("data") or row.get("body")
        return given if isinstance(given, str) else bytes(given).decode()
'''
UNDER_ENVELOPE = """
def handle(data, context):
    if data is None:
        return None
    explain = context.get_request_header(0, "explain")
    return [[explain, type(row).__name__, str(row)] for row in data]
"""
TENSORS_UNDER_ENVELOPE = """
def handle(data, context):
    if data is None:
        return None
    return [[2 * value for value in row["data"]] for row in data]
"""
MEASURES = """
from ts.metrics.dimension import Dimension
from ts.metrics.metric_type_enum import MetricTypes


def handle(data, context):
    if data is None:
        return None
    metrics = context.metrics
    metrics.add_counter("AskedTimes", 2)
    metrics.add_time("LastTook", 5.5, unit="ms")
    metrics.add_size("Size", 7, dimensions=[Dimension("Kind", "text")])
    metrics.add_percent("Full", 12.5)
    metrics.add_error("Oops", 1)
    metrics.add_metric("Seen", 2, unit="Count", metric_type=MetricTypes.COUNTER, dimensions=[Dimension("Kind", "row")])
    metrics.add_metric("WordsSeen", 3, unit="Count", metric_type=MetricTypes.HISTOGRAM)
    metrics.get_metric("Waiting", MetricTypes.GAUGE).add_or_update(4, [context.model_name, "urgent"])
    return ["measured"] * len(data)
"""
METRICS = """
dimensions: []
ts_metrics: {counter: [], gauge: [], histogram: []}
model_metrics:
  gauge:
    - {name: Waiting, unit: Count, dimensions: [ModelName, Queue]}
"""
ARCHIVES = {
    "explains": EXPLAINS,
    "book": BOOK,
    "only-body": ONLY_BODY,
    "echo": ECHO,
    "answers": ANSWERS,
    "counts": COUNTS,
}


@dataclass(frozen=True)
class Asked:
    """One request."""

    model: str
    content: bytes | None = None
    content_type: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    files: Any = None
    form: dict[str, Any] | None = None
    query: str = ""

    def of(self, client: httpx.Client, path: str) -> httpx.Response:
        headers = dict(self.headers)
        if self.content_type is not None:
            headers["Content-Type"] = self.content_type
        return client.post(path + self.query, content=self.content, files=self.files, data=self.form, headers=headers)


@dataclass(frozen=True)
class Both:
    """TorchServe and a pod that serve the same archives."""

    torchserve: httpx.Client
    pod: httpx.Client
    gateway: httpx.Client
    metrics: httpx.Client
    """TorchServe's."""

    def ask(self, asked: Asked) -> tuple[httpx.Response, httpx.Response]:
        """Return TorchServe's answer and the pod's."""
        return (
            asked.of(self.torchserve, f"/predictions/{asked.model}/1.0"),
            asked.of(self.pod, f"/predict/{asked.model}/1.0"),
        )


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[StockTorchServe, str]]:
    """A TorchServe that has the archives, and a registry in which they are published."""
    with contextlib.ExitStack() as stack:
        home = tmp_path_factory.mktemp("differential")
        (home / "metrics.yaml").write_text(METRICS)
        measures = {"metrics_mode": "prometheus", "model_metrics_auto_detect": "true"}
        measures["metrics_config"] = str(home / "metrics.yaml")
        stock = stack.enter_context(StockTorchServe(home / "stock", tokens=False, **measures))
        management = stack.enter_context(
            httpx.Client(base_url=stock.addresses["management"], timeout=60, trust_env=False)
        )
        registry = f"file://{home}/registry"
        open_registry(registry, create=True)
        for name, source in ARCHIVES.items():
            path = archive(stock.store, name, source)
            query = {"url": path.name, "initial_workers": 1, "model_name": name}
            assert management.post("/models", params=query).status_code == 200
            handler = home / f"{name.replace('-', '_')}_handler.py"
            handler.write_text(source)
            publish(model_name=name, version="1.0", handler=str(handler), registry=registry, label="PROD", force=True)
        path = archive(stock.store, "measures", MEASURES, files={"metrics.yaml": METRICS})
        query = {"url": path.name, "initial_workers": 1, "model_name": "measures"}
        assert management.post("/models", params=query).status_code == 200
        publish_archive(path, registry=registry, label="PROD", force=True)
        yield stock, registry


@pytest.fixture(scope="module", params=["torchserve", "native"])
def both(
    request: pytest.FixtureRequest, published: tuple[StockTorchServe, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Both]:
    stock, registry = published
    with contextlib.ExitStack() as stack:
        home = tmp_path_factory.mktemp(request.param)
        url = stack.enter_context(pod(home / "ours", registry, engine=request.param))
        gateway = stack.enter_context(GatewayProcess(home / "gateway", registry=registry, pods=[f"a={url}"]))
        addresses = (stock.addresses["inference"], url, gateway.url, stock.addresses["metrics"])
        yield Both(
            *(stack.enter_context(httpx.Client(base_url=each, timeout=60, trust_env=False)) for each in addresses)
        )


FORM = "application/x-www-form-urlencoded"


def text(model: str, content: str) -> Asked:
    return Asked(model, content.encode(), "text/plain")


INPUTS = {
    "json object": Asked("echo", b'{"a": [1, "\xc3\xbc"]}', "application/json"),
    "json with charset": Asked("echo", b"[1]", "application/json; charset=utf-8"),
    "json text": Asked("echo", b'"x"', "application/json"),
    "broken json": Asked("echo", b"{", "application/json"),
    "json by another name": Asked("echo", b"[1]", "application/vnd.api+json"),
    "json in capitals": Asked("echo", b"[1]", "Application/JSON"),
    "text": Asked("echo", "für".encode(), "text/plain"),
    "text with charset": Asked("echo", b"a", "text/csv; charset=x"),
    "text that is none": Asked("echo", b"\xff\xfe", "text/plain"),
    "bytes": Asked("echo", bytes(range(256)), "application/octet-stream"),
    "image": Asked("echo", b"\x89PNG\x00", "image/png"),
    "no content type": Asked("echo", b"abc"),
    "large": Asked("echo", b"x" * 1_000_000, "application/octet-stream"),
    "headers": Asked("echo", b"x", "text/plain", {"X-Tenant": "blue", "Accept": "text/csv"}),
    "query parameters": Asked("echo", b"x", "text/plain", query="?q=1&data=2"),
    "form": Asked("echo", form={"a": "1 2", "b": "ü&=", "c": ["1", "2"]}),
    "form without values": Asked("echo", b"a=1&b=", "application/x-www-form-urlencoded"),
    "form of curl": Asked("echo", b"text=wake me up at six", "application/x-www-form-urlencoded"),
    "form of raw UTF-8": Asked("echo", "data=ü".encode(), FORM),
    "form of any bytes": Asked("echo", b"a=\xff\xfe", FORM),
    "form with an ampersand at its end": Asked("echo", b"data=hello&", FORM),
    "form with an empty value": Asked("echo", b"a=", FORM),
    "form with a name at its end": Asked("echo", b"a=1&b", FORM),
    "form with a name before others": Asked("echo", b"a&b=1", FORM),
    "form with equals signs": Asked("echo", b"a==&b=c=d", FORM),
    "form with escapes": Asked("echo", b"%C3%BC+x=%FF%26", FORM),
    "form with semicolons": Asked("echo", b"a=1;b=2", FORM),
    "form with names of digits": Asked("echo", b"1=2", FORM),
    "form with a name that is no ASCII": Asked("echo", "für=1".encode(), FORM),
    "form by capitals": Asked("echo", b"a=1", "Application/X-WWW-Form-Urlencoded; charset=utf-8"),
    "multipart fields": Asked("echo", files={"left": (None, "1"), "right": (None, "ü")}),
    "multipart field that says json": Asked("echo", files={"a": (None, "{}", "application/json")}),
    "multipart binary field": Asked("echo", files={"a": (None, b"\xff\x00\xfe")}),
    "multipart fields of one name": Asked("echo", files=[("a", (None, "1")), ("a", (None, "2"))]),
    "multipart file": Asked("echo", files={"data": ("x.bin", b"\x00\xff")}),
    "multipart files with types": Asked(
        "echo",
        files={
            "a": ("a.json", b'{"a": 1}', "application/json; charset=utf-8"),
            "b": ("b.txt", "ü".encode(), "text/plain"),
            "c": ("c.png", b"\x89PNG", "image/png"),
        },
    ),
    "multipart field called body": Asked("echo", files={"body": (None, "x")}),
    "the book, text": Asked("book", b"wake me up at six", "text/plain"),
    "the book, json": Asked("book", b'{"text": "wake me"}', "application/json"),
    "the book, bytes": Asked("book", b"wake me up at six"),
    "the book, form": Asked("book", files={"data": (None, "wake me up at six")}),
    "only body, text": Asked("only-body", b"abc", "text/plain"),
    "only body, json": Asked("only-body", b"[1]", "application/json"),
    "only body, bytes": Asked("only-body", b"abc"),
}


def said(answer: httpx.Response) -> Any:
    """Return the document, of an echo without the headers that differ because the connections do."""
    document = answer.json()
    if "headers" in document:
        document["headers"] = {name: document["headers"].get(name) for name in SEEN_HEADERS}
    return document


@pytest.mark.parametrize("name", INPUTS)
def test_handlers_see_the_same(both: Both, name: str) -> None:
    """Status, and all that the handler says of what it was given, are equal."""
    asked = INPUTS[name]
    if asked.files is None:
        expected, got = both.ask(asked)
    else:  # one boundary, so that content types are equal too
        request = httpx.Request("POST", "http://x/", files=asked.files)
        request.read()
        expected, got = both.ask(Asked(asked.model, request.content, request.headers["content-type"]))
    assert expected.status_code == 200, expected.text
    assert got.status_code == 200, got.text
    assert said(got) == said(expected)


PATHS = {
    "a model": ("POST", "/predictions/echo"),
    "a slash behind a model": ("POST", "/predictions/echo/"),
    "a slash behind a version": ("POST", "/predictions/echo/1.0/"),
    "behind a version": ("POST", "/predictions/echo/1.0/x%20y/%C3%BC/"),
    "PUT": ("PUT", "/predictions/echo/1.0/x"),
    "GET": ("GET", "/predictions/echo/1.0"),
    "no body": ("POST", "/predictions/echo/1.0"),
    "explain": ("POST", "/explanations/echo/1.0/x"),
    "invoke": ("POST", "/models/echo/invoke"),
}


@pytest.mark.parametrize("name", PATHS)
def test_paths_of_the_gateway_are_torchserves(both: Both, name: str) -> None:
    """Each path leads to the handler with the same body, the caller's own headers, and what stands behind a version."""
    method, path = PATHS[name]
    headers = {"X-Customer-Key": "k-1", "X-Tenant": "blue", "Content-Type": "application/json"}
    content = None if name in ("GET", "no body") else b'{"a": 1}'
    expected, got = (
        client.request(method, path, content=content, headers=headers) for client in (both.torchserve, both.gateway)
    )
    assert (expected.status_code, got.status_code) == (200, 200), (expected.text, got.text)
    assert got.json()["headers"]["x-customer-key"] == expected.json()["headers"]["x-customer-key"] == "k-1"
    theirs, ours = said(expected), said(got)
    if name == "invoke":  # where TorchServe does not say what kind of call it is
        for own in ("explain", "url_path"):
            assert theirs["headers"].pop(own) is None
            ours["headers"].pop(own)
    assert ours == theirs


REFUSED = {
    "an unknown path": ("POST", "/predictions", 404),
    "an unknown model": ("POST", "/predictions/nix", 404),
    "an unknown version": ("POST", "/predictions/echo/9", 404),
    "an unknown model invoked": ("POST", "/models/nix/invoke", 404),
    "invocations of no model": ("POST", "/invocations", 400),
    "a workflow": ("GET", "/workflows/x", 404),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_have_the_same_status_and_type(both: Both, name: str) -> None:
    """What both refuse has one status and one exception's name; the gateway's message says what to do."""
    method, path, status = REFUSED[name]
    expected, got = (client.request(method, path) for client in (both.torchserve, both.gateway))
    assert (expected.status_code, got.status_code) == (status, status)
    assert got.json().keys() == expected.json().keys()
    assert (got.json()["code"], got.json()["type"]) == (expected.json()["code"], expected.json()["type"])


UNDER_ENVELOPES: dict[str, Any] = {
    "body": ["text"],
    "json": {"instances": [{"a": 1}, {"b64": "AP8="}]},
    "kserve": {"instances": [{"data": [[[0.0]]], "target": 0}]},
    "kservev2": {
        "id": "mine",
        "inputs": [{"name": "x", "shape": [2], "datatype": "INT64", "data": [1, 2]}],
    },
}


@pytest.fixture(scope="module", params=list(UNDER_ENVELOPES))
def enveloped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Both, Any]]:
    """TorchServe and a pod whose every handler is in one of TorchServe's request envelopes, and what that takes."""
    envelope: str = request.param
    with contextlib.ExitStack() as stack:
        home = tmp_path_factory.mktemp(envelope)
        stock = stack.enter_context(StockTorchServe(home / "stock", tokens=False, service_envelope=envelope))
        source = TENSORS_UNDER_ENVELOPE if envelope == "kservev2" else UNDER_ENVELOPE
        path = archive(stock.store, "under", source)
        query = {"url": path.name, "initial_workers": 1, "model_name": "under"}
        assert httpx.post(f"{stock.addresses['management']}/models", params=query, timeout=60).status_code == 200
        registry = f"file://{home}/registry"
        open_registry(registry, create=True)
        publish_archive(path, registry=registry)
        url = stack.enter_context(pod(home / "ours", registry, service_envelope=envelope))
        theirs, ours = (
            stack.enter_context(httpx.Client(base_url=each, timeout=60, trust_env=False))
            for each in (stock.addresses["inference"], url)
        )
        yield Both(theirs, ours, ours, theirs), UNDER_ENVELOPES[envelope]


@pytest.mark.extended  # tests/core/worker has the envelopes
def test_request_envelopes_are_the_same(enveloped: tuple[Both, Any]) -> None:
    """A pod that is told of one of TorchServe's envelopes has every handler in it, to predict and to explain."""
    both, document = enveloped
    for route, headers in (("predictions", {}), ("explanations", {"x-marway-explain": "1"})):
        expected = both.torchserve.post(f"/{route}/under/1.0", json=document)
        got = both.pod.post("/predict/under/1.0", json=document, headers=headers)
        assert (expected.status_code, got.status_code) == (200, 200), (expected.text, got.text)
        assert got.json() == expected.json()


def measured(client: httpx.Client, prefix: str = "") -> dict[tuple[str, str], float]:
    """Return the handler's own metrics by name and the value of their own dimension."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    names = ("AskedTimes", "LastTook", "Size", "Full", "Oops", "Seen", "WordsSeen_sum", "WordsSeen_count", "Waiting")
    found = {}
    for sample in (sample for family in families for sample in family.samples):
        name = sample.name.removeprefix(prefix).removesuffix("_total")
        if name in names:
            found[name, sample.labels.get("Kind", sample.labels.get("Queue", ""))] = sample.value
    return found


def test_what_handlers_measure_is_shown_by_the_pod(both: Both) -> None:
    """Counters, gauges and histograms of `context.metrics`, those of a file too, have TorchServe's values."""
    before = measured(both.metrics)  # of a run with another engine: counted ones go on
    for client in (both.torchserve, both.gateway):
        for _ in range(3):
            assert client.post("/predictions/measures", content=b"x").text == "measured"
    ours = measured(both.pod, "marway_handler_")
    assert len(ours) == 9
    counted = ("AskedTimes", "Oops", "Seen", "WordsSeen_sum", "WordsSeen_count")
    expected = {key: value + (before.get(key, 0.0) if key[0] in counted else 0.0) for key, value in ours.items()}
    # TorchServe reads what its workers print, some time later.
    wait_until(lambda: measured(both.metrics) == expected, timeout_s=30, what=f"TorchServe's metrics are {expected}")


EXPLAINED = {
    "text": Asked("explains", b"wake me up", "text/plain"),
    "bytes": Asked("explains", b"wake me up"),
    "form": Asked("explains", form={"data": "wake me up", "target": "3"}),
}


@pytest.mark.parametrize("name", EXPLAINED)
def test_explanations_are_the_same(both: Both, name: str) -> None:
    """A handler that knows how to explain is asked to, as by TorchServe's `/explanations`, and predicts otherwise."""
    asked = EXPLAINED[name]
    expected = asked.of(both.torchserve, f"/explanations/{asked.model}/1.0")
    got = replace(asked, headers={"x-marway-explain": "1"}).of(both.pod, f"/predict/{asked.model}/1.0")
    assert (got.status_code, got.json()) == (expected.status_code, expected.json())
    assert got.json()["insights"] == [4, 2, 2]
    expected, got = both.ask(asked)
    assert got.json() == expected.json() == {"words": 3}


OUTPUTS = ["dict", "list", "number", "none", "text", "bytes", "bytearray", "tensor", "empty", "status"]
WITH_TYPE = ["client error", "server error", "headers"]


@pytest.mark.parametrize("asked", OUTPUTS + WITH_TYPE)
def test_answers_come_back_the_same(both: Both, asked: str) -> None:
    """Status and bytes are equal, and so are content type and headers that the handler set."""
    expected, got = both.ask(text("answers", asked))
    assert (got.status_code, got.content) == (expected.status_code, expected.content)
    if asked in WITH_TYPE:
        assert got.headers["content-type"] == expected.headers["content-type"]
    assert got.headers.get("x-model") == expected.headers.get("x-model")


# --- where they differ on purpose: the table in docs/torchserve.md ---


@pytest.mark.parametrize(
    ("asked", "content_type"),
    [
        ("dict", "application/json"),
        ("text", "text/plain; charset=utf-8"),
        ("bytes", "application/octet-stream"),
        ("tensor", "application/octet-stream"),
    ],
)
def test_differs_an_answer_says_what_it_is(both: Both, asked: str, content_type: str) -> None:
    """TorchServe names no content type unless the handler does; we name what the handler returned."""
    expected, got = both.ask(text("answers", asked))
    assert "content-type" not in expected.headers
    assert got.headers["content-type"] == content_type


@pytest.mark.parametrize(
    ("model", "asked", "theirs", "ours", "reason"),
    [
        ("answers", "raise", 503, 500, "ValueError: on purpose"),
        ("answers", "refuse", 422, 422, "refused by the model"),
        ("answers", "memory", 507, 507, "out of memory"),
        ("answers", "not json", 503, 500, "cannot be encoded"),
        ("counts", "too many", 503, 500, "2 answers for 1 rows"),
        ("counts", "no list", 503, 500, "returned dict, not a list"),
    ],
)
def test_differs_errors_are_problems_with_their_reason(
    both: Both, model: str, asked: str, theirs: int, ours: int, reason: str
) -> None:
    """A failure is a problem document with the handler's message, and never a 503, which says to try again."""
    expected, got = both.ask(text(model, asked))
    assert (expected.status_code, set(expected.json())) == (theirs, {"code", "type", "message"})
    assert (got.status_code, got.json()["code"]) == (ours, "model_error")
    assert got.headers["content-type"] == "application/problem+json"
    assert reason in got.json()["detail"]
    assert (reason in expected.text) == (asked == "refuse")


def test_differs_text_that_curl_calls_a_form_is_kept(both: Both) -> None:
    """`curl -d TEXT` loses the text in TorchServe, which finds no field in it; here it is under `data`."""
    expected, got = both.ask(Asked("echo", b"wake me up", "application/x-www-form-urlencoded"))
    assert expected.json()["values"] == {}
    assert got.json()["values"] == {"the body": ["bytearray", {"bytes": "wake me up"}]}


def test_differs_a_native_request_without_a_body_is_refused(both: Both) -> None:
    """TorchServe runs the handler on nothing, as its paths do here; a native request must have a body."""
    expected, got = both.ask(Asked("echo", b""))
    assert expected.status_code == 200
    assert (got.status_code, got.json()["code"]) == (400, "invalid_request")


def test_differs_credentials_stay_outside(both: Both) -> None:
    """TorchServe shows handlers the caller's credentials; we do not."""
    headers = {"Authorization": "Bearer secret", "Cookie": "secret=1"}
    expected, got = both.ask(Asked("echo", b"x", "text/plain", headers))
    assert "secret" in json.dumps(expected.json()["headers"])
    assert "secret" not in json.dumps(got.json()["headers"])


def test_differs_header_names_have_no_case(both: Both) -> None:
    """TorchServe finds a header only as the client spelt it; here any spelling finds it."""
    expected, got = both.ask(Asked("echo", b"x", "text/plain", {"x-tenant": "blue"}))
    assert expected.json()["tenant"] is None
    assert got.json()["tenant"] == "blue"


def test_differs_iterating_a_raw_body_names_data(both: Both) -> None:
    """TorchServe's REST calls a raw body `body`; it is `data` here, and found as `body` too."""
    expected, got = both.ask(Asked("echo", b"x", "text/plain"))
    assert "body" in expected.json()["headers"]
    assert {"body", "data"} <= set(got.json()["headers"])


def test_differs_numbers_that_json_has_not(both: Both) -> None:
    """TorchServe writes `NaN`, which is no JSON; here the row is refused, and told where."""
    expected, got = both.ask(text("answers", "nan"))
    assert (expected.status_code, "NaN" in expected.text) == (200, True)
    assert (got.status_code, got.json()["code"]) == (500, "model_error")
    assert "it holds nan at score" in got.json()["detail"]


def test_differs_numpy_and_sets_are_written(both: Both) -> None:
    """TorchServe has no encoding for them; here they are numbers and lists."""
    expected, got = both.ask(text("answers", "numpy"))
    assert expected.status_code == 503
    assert got.json() == {"scores": [0.5, 1.0], "best": 1, "labels": ["a", "b"]}


def test_differs_a_form_of_many_fields_is_refused(both: Both) -> None:
    """What a form costs goes by its fields."""
    body = b"&".join([b"a=1"] * 1001)
    expected, got = both.ask(Asked("echo", body, "application/x-www-form-urlencoded"))
    assert expected.status_code == 200
    assert (got.status_code, got.json()["code"]) == (400, "invalid_request")


def test_differs_the_root_is_the_gateways_own(both: Both) -> None:
    """`GET /` says what this is; TorchServe has nothing there. What both refuse there is a problem document here."""
    assert (both.torchserve.get("/").status_code, both.gateway.get("/").status_code) == (405, 200)
    expected, got = (client.request("PATCH", "/") for client in (both.torchserve, both.gateway))
    assert (expected.status_code, got.status_code) == (405, 405)
    assert got.headers["content-type"] == "application/problem+json"


def test_differs_json_that_is_nested_too_deeply_is_the_callers_fault(both: Both) -> None:
    """TorchServe hands it to the handler as bytes, as if it were no JSON; here it is refused."""
    expected, got = both.ask(Asked("echo", b"[" * 50_000 + b"]" * 50_000, "application/json"))
    assert expected.status_code == 200
    assert (got.status_code, "nested too deeply" in got.text) == (400, True)
