"""What a pod says of a version, and when answers of two engines count as equal."""

from __future__ import annotations

import io
import json
from collections.abc import Callable

import pytest
import torch

from marway.answers.golden import ExampleInput, Tolerance
from marway.errors import LoadFailed
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.wire import problems
from marway.wire.pods import LoadReport, ModelStatus
from marway_ops.engines.proof import EngineAnswer, answer_difference, prove
from marway_ops.up.home import ReservedPort
from marway_ops.up.local_pods import Pod
from support.registry import record_of
from support.stub_pod import StubPod

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"
PREDICT, LOAD = "/predict/intent/1.0", "/models/intent/1.0/load"
EXAMPLES = (ExampleInput(b"one", TEXT), ExampleInput(b"[2]", JSON))


@pytest.fixture
def record() -> VersionRecord:
    return record_of(b"x", serving=ServingSettings(load_timeout_s=5, predict_timeout_s=2))


def saved(*numbers: float) -> bytes:
    buffer = io.BytesIO()
    torch.save(torch.tensor(numbers, dtype=torch.float32), buffer)
    return buffer.getvalue()


def reports(pod: StubPod, *differences: str, golden: str | None = "0" * 64) -> None:
    report = LoadReport(
        model=ModelStatus(id="x", name="intent", version="1.0", state="ready"),
        golden_sha256=golden,
        examples=2,
        differences=differences,
        duration_s=0.5,
        server="native",
        server_versions={"native": "0.1.0", "torch": "2"},
    )
    pod.on(LOAD, (200, JSON, report.model_dump_json().encode()))


async def test_a_pod_proves_and_answers(stub_pods: Callable[[], StubPod], record: VersionRecord) -> None:
    """It is asked to load and prove, then for each example as a client asks, and what differs is known by number."""
    pod = stub_pods()
    reports(pod, "example 2: at score: 1 was expected, 2 came")
    pod.on(PREDICT, lambda body: (200, TEXT, body.upper()))
    proof = await prove(Pod("pod-0", pod.url, "native"), record, EXAMPLES)
    assert (proof.ok, proof.golden, proof.failure, proof.duration_s) == (False, True, None, 0.5)
    assert proof.differences == {2: "at score: 1 was expected, 2 came"}
    assert [(each.status, each.content_type, each.body) for each in proof.answers] == [
        (200, TEXT, b"ONE"),
        (200, TEXT, b"[2]"),
    ]
    load, *asked = pod.came
    assert load[0] == f"{LOAD}?prove=true"
    assert load[2]["x-request-timeout-ms"] == "9000"
    assert [body for _, body, _ in asked] == [b"one", b"[2]", b"one", b"[2]"]
    assert asked[1][2]["content-type"] == JSON


async def test_a_pod_that_refuses_or_is_gone_is_told(stub_pods: Callable[[], StubPod], record: VersionRecord) -> None:
    """A load that is refused, and a pod that does not answer, are the failure of that engine and no error."""
    pod = stub_pods()
    problem, _ = problems.problem_of(LoadFailed("parallelType is not served"))
    pod.on(LOAD, (500, problems.CONTENT_TYPE, problem.model_dump_json().encode()))
    refused = await prove(Pod("pod-0", pod.url, "native"), record, EXAMPLES)
    assert (refused.failure, refused.ok, refused.answers) == ("parallelType is not served", False, ())
    silent = ReservedPort()  # nobody listens on it
    gone = await prove(Pod("pod-0", f"http://127.0.0.1:{silent.number}", "torchserve"), record, EXAMPLES)
    silent.close()
    assert gone.failure is not None
    assert gone.failure.startswith("its pod does not answer any more: ")


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ((200, JSON, b'{"score": 0.5}'), (200, JSON, b'{"score":0.50001}'), None),
        ((200, JSON, b'{"score": 0.5}'), (200, JSON, b'{"score": 0.6}'), "at score: 0.5 was expected, 0.6 came"),
        ((200, JSON, b"{}"), (200, f"{JSON}; x", b"{}"), None),
        ((200, TEXT, b"{}"), (200, JSON, b"{}"), "text was expected, json came"),
        ((200, TEXT, b"x"), (200, "text/html", b"x"), "content type text/plain was expected, text/html came"),
        ((200, TEXT, b"a"), (200, TEXT, b"b"), '"a" was expected, "b" came'),
        ((200, TEXT, b"a"), (404, TEXT, b"a"), "status 200 was expected, 404 came"),
        ((200, BYTES, saved(1, 2)), (200, BYTES, saved(1, 2.00001)), None),
        ((200, BYTES, saved(1, 2)), (200, BYTES, saved(1, 3)), "at values[1]: 2.0 was expected, 3.0 came"),
        ((200, BYTES, b"PK no zip"), (200, BYTES, b"PK other"), "was expected"),
    ],
)  # fmt: skip
def test_answers_of_two_engines(one: tuple[int, str, bytes], other: tuple[int, str, bytes], says: str | None) -> None:
    """Numbers of JSON and of tensors may lie apart as golden answers may; all else is the same or differs."""
    found = answer_difference(EngineAnswer(*one), EngineAnswer(*other), Tolerance())
    assert found is None if says is None else found is not None and says in found
    assert answer_difference(EngineAnswer(*one), EngineAnswer(*one, seconds=1.0), Tolerance()) is None


def test_messages_of_failures_may_differ() -> None:
    """Two failures of one status are equal, whatever they say; of another status they are not."""
    kind = problems.CONTENT_TYPE
    bodies = [
        json.dumps({"title": "x", "status": 500, "detail": text, "code": "model_error"}).encode() for text in "ab"
    ]
    one, other = (EngineAnswer(500, kind, body) for body in bodies)
    assert answer_difference(one, other, Tolerance()) is None
    found = answer_difference(one, EngineAnswer(503, kind, bodies[1]), Tolerance())
    assert found == "status 500 was expected, 503 came (b)"
