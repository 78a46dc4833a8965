"""Predictions over real TorchServe, through gateway and sidecar."""

from __future__ import annotations

import http.client
import json
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from support.cli import marway, refused
from support.up import Up, wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
SAMPLES = Path(__file__).parents[2] / "examples" / "digits" / "samples"


def test_text_is_classified(client: httpx.Client) -> None:
    """A sentence is answered by the model that PROD points at, which the headers name."""
    answer = client.post("/predict/intent/PROD", content=b"wake me up at six")
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == "set_alarm"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-model-name"] == "intent"
    assert answer.headers["x-model-version"] == "1.0"
    assert answer.headers["x-model-id"].startswith("mv_")
    assert answer.headers["x-request-id"]
    assert "dur=" in answer.headers["server-timing"]
    assert not [name for name in answer.headers if name.startswith("x-marway")]


@pytest.mark.parametrize("reference", ["intent", "intent/1.0", "intent/PROD", "INTENT/PROD", "id"])
def test_every_reference_leads_to_the_version(client: httpx.Client, reference: str) -> None:
    """Name, version, label and id all lead to the one version."""
    if reference == "id":
        reference = client.post("/predict/intent", content=b"hello").headers["x-model-id"]
    answer = client.post(f"/predict/{reference}", content=b"tell me a joke")
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == "tell_joke"


@pytest.mark.parametrize(
    ("content", "content_type"),
    [
        (b"tell me a joke", "text/plain"),
        (b"tell me a joke", "application/octet-stream"),
        (b"tell me a joke", "application/x-www-form-urlencoded"),
        (b'{"text": "tell me a joke"}', "application/json"),
        (b'"tell me a joke"', "application/json"),
    ],
)
def test_every_form_of_input_gives_the_same_answer(client: httpx.Client, content: bytes, content_type: str) -> None:
    """Bytes, text, curl's default and JSON all reach the handler as what they are."""
    answer = client.post("/predict/intent", content=content, headers={"content-type": content_type})
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == "tell_joke"


@pytest.mark.parametrize("sample", sorted(SAMPLES.iterdir()), ids=lambda path: path.name)
def test_digits_are_read(client: httpx.Client, sample: Path) -> None:
    """A picture of a digit is read, as numbers and as PNG."""
    kind = "application/json" if sample.suffix == ".json" else "image/png"
    answer = client.post("/predict/digits/PROD", content=sample.read_bytes(), headers={"content-type": kind})
    assert answer.status_code == 200, answer.text
    assert answer.json()["label"] == sample.stem


def test_the_handler_sees_what_rest_would_give_it(client: httpx.Client) -> None:
    """JSON comes parsed, text as str, other bytes as bytes, with the model's real name and the caller's request id."""
    for kind, content, seen in (
        ("application/json", b"[1, 2]", "list"),
        ("text/plain; charset=utf-8", b"abc", "str"),
        ("application/octet-stream", b"abc", "bytearray"),
    ):
        headers = {"content-type": kind, "x-request-id": "asked-by-a-test"}
        answer = client.post("/predict/probe", content=content, headers=headers)
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["type"] == seen
        assert said["model"] == "probe"
        assert said["request_id"] == "asked-by-a-test"
        assert said["content_type"] == kind
        assert answer.headers["x-request-id"] == "asked-by-a-test"


def test_form_fields_reach_the_handler_by_name(client: httpx.Client) -> None:
    """Multipart fields come to the handler under their names."""
    answer = client.post("/predict/probe", files={"left": b"1", "right": b"2"})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"left": "1", "right": "2"}


def test_status_headers_and_content_type_of_the_handler_come_back(client: httpx.Client) -> None:
    """What the handler sets on its answer reaches the caller."""
    answer = client.post("/predict/probe", json={"status": 418})
    assert answer.status_code == 418
    assert answer.text == "a,b"
    assert answer.headers["content-type"] == "text/csv"
    assert answer.headers["x-probe"] == "set by the handler"


@pytest.mark.parametrize(
    ("asked", "content", "content_type"),
    [(b"bytes", b"\x00\x01\x02", "application/octet-stream"), (b"text", b"plain text", "text/plain; charset=utf-8")],
)
def test_answers_that_are_no_json_keep_their_bytes(
    client: httpx.Client, asked: bytes, content: bytes, content_type: str
) -> None:
    """Bytes and text come back as they are, with a content type that says so."""
    answer = client.post("/predict/probe", content=asked, headers={"content-type": "text/plain"})
    assert (answer.content, answer.headers["content-type"]) == (content, content_type)


def test_a_handler_that_raises_is_named_and_its_traceback_kept(up: Up, client: httpx.Client) -> None:
    """The caller gets the handler's message, once, and `marway logs` has its print and its traceback."""
    answer = client.post("/predict/probe", content=b"boom", headers={"content-type": "text/plain"})
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (500, "model_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "ValueError: the input said boom" in problem["detail"]
    logs = marway("logs", "probe", "--home", str(up.home))
    assert logs.returncode == 0, logs.stderr
    assert logs.stdout.count("about to fail on purpose") == 1, "tried once, and not again elsewhere"
    assert "Traceback (most recent call last)" in logs.stdout
    assert "ValueError: the input said boom" in logs.stdout
    as_json = marway("logs", "probe/1.0", "--home", str(up.home), "--json").stdout.splitlines()
    assert {json.loads(line)["model"] for line in as_json} == {"probe"}


def test_a_refusal_by_the_handler_keeps_its_status(client: httpx.Client) -> None:
    """A handler that raises `PredictionException` decides the status."""
    answer = client.post("/predict/probe", content=b"refuse", headers={"content-type": "text/plain"})
    assert (answer.status_code, answer.json()["code"]) == (422, "model_error")
    assert "refused by the model" in answer.json()["detail"]


def test_a_request_that_kills_its_worker_is_tried_once_more_and_harms_nobody(up: Up, client: httpx.Client) -> None:
    """An input that kills workers is tried on two at most, is called the model's error, and the model goes on."""
    plain = {"content-type": "text/plain"}
    answer = client.post("/predict/probe", content=b"die", headers=plain)
    assert (answer.status_code, answer.json()["code"]) == (500, "model_error"), answer.text
    assert "killed two workers" in answer.json()["detail"]
    wait_until(
        lambda: client.post("/predict/probe", content=b"text", headers=plain).status_code == 200,
        timeout_s=60,
        what="an answer after the workers were started again",
    )


def test_the_books_grpc_answers(up: Up) -> None:
    """`prediction.PredictionService/Predict` answers for a model name, and health says that it serves."""
    with grpc.insecure_channel(up.ready["grpc"]) as channel:
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        request = prediction_pb2.PredictRequest(runId="intent", document="tell me a joke")
        answer = prediction_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=60)
        assert json.loads(answer.response)["label"] == "tell_joke"


def test_the_admin_port_shows_the_pods(up: Up) -> None:
    """`GET /pods` names every pod with its address and what it runs."""
    pods = httpx.get(f"{up.ready['admin']}/pods", trust_env=False).json()
    shown = {(pod["name"], pod["url"]) for pod in (pods["pods"] if isinstance(pods, dict) else pods)}
    assert shown == {(pod["name"], pod["url"]) for pod in up.ready["pods"]}


def test_a_model_that_cannot_be_loaded_says_why(up: Up, client: httpx.Client) -> None:
    """The reason that the handler gave reaches the caller, and the model's log."""
    answer = client.post("/predict/broken", content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (500, "load_failed")
    assert "FileNotFoundError: weights that nobody packed" in answer.json()["detail"]
    shown = marway("logs", "--request", answer.headers["x-request-id"], "--home", str(up.home)).stdout.splitlines()
    assert shown[0] == "why broken 1.0 could not be loaded:"
    assert "weights that nobody packed" in shown[1] + shown[2]
    assert client.post("/predict/intent", content=b"still here").status_code == 200


@pytest.mark.parametrize(
    ("path", "status", "code", "named"),
    [
        ("/predict/nobody", 404, "model_not_found", "intent"),
        ("/predict/intent/9.9", 404, "version_not_found", "1.0"),
        ("/predict/intent/NOBODY", 404, "label_not_found", "PROD → 1.0"),
        ("/predict/mv_01ARZ3NDEKTSV4RRFFQ69G5FAV", 404, "model_not_found", "intent"),
        ("/predict/in%20valid", 400, "invalid_reference", "model"),
    ],
)
def test_wrong_references_say_what_exists(client: httpx.Client, path: str, status: int, code: str, named: str) -> None:
    """An unknown model, version, label or id is refused with the names of those that exist."""
    answer = client.post(path, content=b"x")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"
    assert named in answer.json()["detail"]


def test_no_body_is_refused(client: httpx.Client) -> None:
    """A request without a body is refused with a word on how to send one."""
    answer = client.post("/predict/intent")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "body" in answer.json()["detail"]


def test_a_body_that_is_too_large_is_refused(up: Up) -> None:
    """413 comes from the announced length, before a byte of the body was sent."""
    connection = http.client.HTTPConnection(up.gateway.removeprefix("http://"), timeout=60)
    try:
        connection.putrequest("POST", "/predict/intent")
        connection.putheader("Content-Length", str(65 * 1024 * 1024))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["code"]) == (413, "body_too_large")
    finally:
        connection.close()


def test_a_large_body_passes(client: httpx.Client) -> None:
    """A body of some MiB, too large to be buffered, streams through to the handler."""
    content = b"x" * (5 * 1024 * 1024)
    answer = client.post("/predict/probe", content=content, headers={"content-type": "text/plain"})
    assert answer.status_code == 200, answer.text
    assert len(answer.json()["value"]) == len(content)


def test_the_command_predicts_like_curl(up: Up) -> None:
    """`marway predict` prints the model's answer, and one clear line when there is none."""
    done = marway("predict", "intent", "tell me a joke", "--gateway", up.gateway)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "tell_joke"
    document = json.loads(marway("predict", "intent", "tell me a joke", "--gateway", up.gateway, "--json").stdout)
    assert (document["model"], document["version"]) == ("intent", "1.0")
    assert document["answer"]["label"] == "tell_joke"
    assert "there is no model 'nobody'" in refused(marway("predict", "nobody", "x", "--gateway", up.gateway))


def test_each_pod_answers_by_itself(up: Up) -> None:
    """A sidecar's own URL answers predictions, /models and /metrics, so that a pod works without a gateway."""
    for pod in up.ready["pods"]:
        answer = httpx.post(f"{pod['url']}/predict/intent/PROD", content=b"tell me a joke", timeout=60, trust_env=False)
        assert answer.json()["label"] == "tell_joke"
        models = httpx.get(f"{pod['url']}/models", trust_env=False).json()
        assert "ready" in {model["state"] for model in models if model["name"] == "intent"}
        metrics = httpx.get(f"{pod['url']}/metrics", trust_env=False).text
        assert 'marway_sidecar_model_loads_total{model="intent",outcome="ok",version="1.0"} 1.0' in metrics


def test_pods_that_share_a_store_fetch_an_archive_once(up: Up) -> None:
    """Two pods that load one version fetch its archive once between them."""
    fetched = 0.0
    for pod in up.ready["pods"]:
        httpx.post(f"{pod['url']}/predict/digits", content=b"[]", timeout=60, trust_env=False)
        metrics = httpx.get(f"{pod['url']}/metrics", trust_env=False).text
        fetched += sum(
            float(line.rpartition(" ")[2])
            for line in metrics.splitlines()
            if line.startswith('marway_sidecar_archive_fetches_total{outcome="ok"}')
        )
    archives = [path for path in (up.home / "store").iterdir() if path.suffix == ".mar"]
    assert fetched == len(archives)


@pytest.mark.parametrize("path", ["/predict/probe", "/predictions/probe"])
def test_ids_and_trace_reach_the_handler(client: httpx.Client, path: str) -> None:
    """The caller's request id, group id and W3C trace context go through gateway and pod to the handler, and back."""
    sent = {
        "x-request-id": "r-1",
        "x-request-group-id": "g-1",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "tracestate": "vendor=1",
    }
    answer = client.post(path, content=b"ids", headers={**sent, "content-type": "text/plain"})
    assert answer.json() == {**sent, "id": "r-1"}
    assert (answer.headers["x-request-id"], answer.headers["x-request-group-id"]) == ("r-1", "g-1")
    parts = ",".join(answer.headers.get_list("server-timing"))
    assert {"resolve", "pod", "total", "model"} == {part.partition(";")[0].strip() for part in parts.split(",")}


def test_a_client_of_torchserve_changes_nothing_but_the_host(client: httpx.Client) -> None:
    """TorchServe's own routes answer as the native ones do, `curl -T` too, and errors have TorchServe's form."""
    picture = (SAMPLES / "7.png").read_bytes()
    native = client.post("/predict/digits/1.0", content=picture, headers={"content-type": "image/png"})
    put = client.put("/predictions/digits/1.0", content=picture, headers={"content-type": "image/png"})
    assert (put.status_code, put.json()) == (200, native.json())
    missing = client.post("/predictions/nobody", content=b"x")
    assert (missing.status_code, missing.json()["type"]) == (404, "ModelNotFoundException")
    explained = client.post("/explanations/probe", content=b"explain", headers={"content-type": "text/plain"})
    predicted = client.post("/predictions/probe", content=b"explain", headers={"content-type": "text/plain"})
    assert (explained.json(), predicted.json()) == ("True", "False")
    assert client.get("/ping").json() == {"status": "Healthy"}


def test_the_demo_is_trained_once(up: Up) -> None:
    """The session's `marway up --demo` has trained and published both examples, and says where it serves."""
    names = {model["name"] for model in json.loads(marway("models", "--registry", up.registry, "--json").stdout)}
    assert {"intent", "digits"} <= names
    assert set(up.ready) == {"event", "gateway", "admin", "grpc", "registry", "pods"}
    assert len(up.ready["pods"]) == 2
    for name in ("gateway", "admin"):
        assert httpx.get(f"{up.ready[name]}/healthz", trust_env=False).status_code == 200
