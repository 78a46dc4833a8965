"""What pods say of a version: whether it gives its golden answers there, and what a client gets for each example."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import httpx

from marway.answers.difference import difference
from marway.answers.golden import ExampleInput, GoldenAnswer, Kind, Tolerance, mime_type
from marway.answers.tensors import decode_tensor
from marway.errors import MarwayError, Unavailable, clip
from marway.records import VersionRecord
from marway.wire import problems
from marway.wire.headers import REQUEST_TIMEOUT_MS
from marway.wire.pods import LoadReport
from marway_ops.up.local_pods import Pod

__all__ = ["EngineAnswer", "EngineProof", "answer_difference", "headers_of", "prove"]

_CONNECT_S: Final = 5.0
_SPARE_S: Final = 10.0
"""How much longer than the pod's own deadline its answer is waited for."""
_LINE: Final = re.compile(r"example (\d+): (.*)", re.DOTALL)
_LINE_MAX: Final = 400
_ZIP: Final = b"PK"
_Answers = tuple["EngineAnswer", ...]


@dataclass(frozen=True, slots=True)
class EngineAnswer:
    """What a client of a pod got: status, content type and body, and after how many seconds."""

    status: int
    content_type: str | None
    body: bytes
    seconds: float = 0.0

    def same_as(self, other: EngineAnswer) -> bool:
        """Return whether two answers are the same byte by byte."""
        return (self.status, self.content_type, self.body) == (other.status, other.content_type, other.body)


@dataclass(frozen=True, slots=True)
class EngineProof:
    """What came of a version on a pod of one engine.

    Attributes:
        engine: Its name.
        failure: Why nothing could be proved, such as a load that was refused, or None.
        differences: How examples are answered otherwise than their golden answers say, by their number from 1.
        answers: What a client gets for each example; empty where it failed.
        versions: Of the engine and of what matters inside it, such as torch and Python.
        duration_s: From the request to load the version to its last golden answer, in seconds.
        golden: Whether there are golden answers that could be compared.
    """

    engine: str
    failure: str | None = None
    differences: Mapping[int, str] = field(default_factory=dict)
    answers: _Answers = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    duration_s: float = 0.0
    golden: bool = False

    @property
    def ok(self) -> bool:
        """Whether it loaded and gave all golden answers that there are."""
        return self.failure is None and not self.differences


async def prove(pod: Pod, record: VersionRecord, examples: Sequence[ExampleInput]) -> EngineProof:
    """Have a pod load a version and compare its golden answers; then ask it for each example, as a client does.

    What goes wrong is told in what is returned: the other engine's side is wanted all the same.
    """
    try:
        async with httpx.AsyncClient(base_url=pod.url, trust_env=False) as client:
            report = await _loaded(client, record, len(examples))
            answers = [await _asked(client, record, example) for example in examples]
            # Again, now that all is warm: the faster one counts.
            for index, example in enumerate(examples):
                again = await _asked(client, record, example)
                answers[index] = min(answers[index], again, key=lambda each: each.seconds)
    except MarwayError as exc:
        return EngineProof(pod.engine, clip(exc.message, _LINE_MAX))
    except httpx.HTTPError as exc:
        said = str(exc) or type(exc).__name__
        return EngineProof(pod.engine, f"its pod does not answer any more: {clip(said, _LINE_MAX)}")
    return EngineProof(
        pod.engine,
        differences=_by_number(report.differences),
        answers=tuple(answers),
        versions=report.server_versions,
        duration_s=report.duration_s,
        golden=report.golden_sha256 is not None,
    )


async def _loaded(client: httpx.AsyncClient, record: VersionRecord, examples: int) -> LoadReport:
    """Have the version loaded and proved.

    Raises:
        MarwayError: Why the pod could not.
    """
    limit_s = record.serving.load_timeout_s + examples * record.serving.predict_timeout_s
    answer = await client.post(
        f"/models/{record.name}/{record.version}/load",
        params={"prove": "true"},
        headers={REQUEST_TIMEOUT_MS: str(int(limit_s * 1000))},
        timeout=httpx.Timeout(limit_s + _SPARE_S, connect=_CONNECT_S),
    )
    if answer.is_error:
        raise problems.parse_problem(answer.content, status=answer.status_code)
    try:
        return LoadReport.model_validate_json(answer.content)
    except ValueError as exc:
        raise Unavailable(f"{client.base_url} is no pod of Marway's: it answers {clip(answer.text, 80)!r}") from exc


async def _asked(client: httpx.AsyncClient, record: VersionRecord, example: ExampleInput) -> EngineAnswer:
    limit_s = record.serving.predict_timeout_s
    started = time.perf_counter()
    answer = await client.post(
        f"/predict/{record.name}/{record.version}",
        content=example.data,
        headers=headers_of(example, limit_s),
        timeout=httpx.Timeout(limit_s + _SPARE_S, connect=_CONNECT_S),
    )
    took = time.perf_counter() - started
    return EngineAnswer(answer.status_code, answer.headers.get("content-type"), answer.content, took)


def headers_of(example: ExampleInput, timeout_s: float) -> dict[str, str]:
    """Return the headers of a request with an example that gives up after ``timeout_s``."""
    sent = {REQUEST_TIMEOUT_MS: str(max(1, int(timeout_s * 1000)))}
    if example.content_type is not None:
        sent["content-type"] = example.content_type
    return sent


def answer_difference(expected: EngineAnswer, got: EngineAnswer, tolerance: Tolerance) -> str | None:
    """Return how two answers to one input differ in one line, or None.

    JSON and saved tensors are compared with their numbers within ``tolerance``; all else byte by byte. Of errors the
    statuses count: their texts may hold what changes with each call.
    """
    if expected.same_as(got):
        return None
    return difference(_compared(expected), _compared(got), tolerance)


def _compared(answer: EngineAnswer) -> GoldenAnswer:
    status, content_type, body = answer.status, answer.content_type, answer.body
    if mime_type(content_type) == problems.CONTENT_TYPE:
        detail = problems.parse_problem(body, status=status).message
        return GoldenAnswer(status=status, kind="error", content_type=content_type, value=detail)
    if body.startswith(_ZIP):
        try:
            return GoldenAnswer(status=status, kind="tensor", content_type=content_type, value=decode_tensor(body))
        except ValueError:
            pass  # another file, or a tensor that is not looked into
    kind: Kind = "text" if mime_type(content_type).startswith("text/") else "bytes"
    return GoldenAnswer.of(status=status, kind=kind, body=body, content_type=content_type)


def _by_number(lines: Sequence[str]) -> dict[int, str]:
    """Return what a pod says of examples, by their numbers (`marway.wire.pods.LoadReport.differences`)."""
    found = (_LINE.fullmatch(line) for line in lines)
    return {int(each[1]): each[2] for each in found if each is not None}
