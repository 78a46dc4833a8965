"""The same question once more, to the very version that answered it, and whether it answers the same.

What was kept of the input is sent with its content type, and nothing else: a handler that looks at other headers may
answer otherwise. The gateway's cache is not asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import httpx

from marway.answers.difference import difference, golden_of
from marway.answers.golden import DEFAULT_TOLERANCE, GoldenAnswer, Kind, is_json
from marway.errors import MarwayError, Unavailable, clip
from marway.refs import Reference
from marway.registry import Registry
from marway.wire import headers, problems
from marway.wire.envelope import mime_type

__all__ = ["NotReplayed", "Question", "answer_of", "headers_of", "question_of", "replayed"]

_JSON: Final = "application/json"
_OPENAI_WANTED: Final = {"messages": "chat/completions", "prompt": "completions"}
"""By a field of a request, the one of OpenAI's routes that wants it."""
_OPENAI: Final = {"list": "embeddings", "response": "responses"}
"""By the `object` of an answer, the route that gives such."""
_STAMPS: Final = frozenset({"id", "created", "created_at", "model"})
"""What is another in each answer of OpenAI's API, or by the name that its caller used."""
_OPEN_INFERENCE: Final = frozenset({"open_inference", "open_inference_grpc"})
"""Whose bodies are kept as JSON, however they came."""
_OF_FORM: Final = frozenset({"binary_data_output", "binary_data"})
_NATIVE: Final = frozenset({"native", "prediction_grpc", "torchserve_grpc"})
"""Surfaces whose input, as it is kept, is what the native one takes."""
_NOT_KEPT: Final = {
    "off": "its input and answer were not kept: `marway serving MODEL --set observe=bodies` keeps those that come",
    "too_large": "its input or answer was too large to be kept",
    "streamed": "its answer came in pieces, and such are not kept",
    "not_redactable": "its input or answer could not be read, and so not be redacted: it was not kept",
    "failed": "it failed before its whole input had come",
}
"""Why there is nothing to ask again, by what the column `bodies` says."""


class NotReplayed(MarwayError):
    """There is nothing to send, or nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is sent to ask again."""

    path: str
    body: bytes
    headers: dict[str, str]


def replayed(
    row: Mapping[str, Any], registry: Registry, *, gateway: str, token: str | None, timeout_s: float
) -> dict[str, Any]:
    """Ask again what an observation's caller asked, and return how the answers compare, as JSON has it.

    `same` says whether they are the same by the version's golden tolerance, `difference` where not, and `redacted`
    which fields are removed from what is kept: then a difference may come from that.

    Args:
        row: The observation, with its bodies.
        registry: Has the version's record, its golden tolerance and its serving settings.
        gateway: URL of a gateway's public port.
        token: A bearer token for it.
        timeout_s: Deadline, seconds; a version that is not loaded is loaded within it.

    Raises:
        NotReplayed: The bodies were not kept, or the protocol's requests cannot be made again from what was.
        NotFound: The version is gone.
        Unavailable: There is no gateway, or it could not have the answer.
    """
    if row["input"] is None or (row["output"] is None and row["outcome"] == "ok"):
        raise NotReplayed(_NOT_KEPT.get(row["bodies"], f"its bodies were not kept ({row['bodies']})"))
    question = question_of(row)
    record = registry.resolve(Reference(row["model"], row["version"]))
    golden = golden_of(registry, record)
    tolerance = golden.tolerance if golden is not None else DEFAULT_TOLERANCE
    serving = registry.state(record.name).serving_for(record)
    answer = _ask(question, gateway, row["prediction_id"], token, timeout_s)
    if row["output"] is None or row["error"] is not None:
        found = _failure_difference(row, answer)
    elif (problem := _problem(answer)) is not None:
        raise problem
    else:
        if answer.headers.get(headers.MODEL_ID) not in (record.id, None):
            raise NotReplayed(f"{answer.headers[headers.MODEL_ID]} answered in place of {record.id}")
        found = difference(
            _kept(row, answer.status_code),
            answer_of(row["surface"], answer.status_code, answer.content, answer.headers.get("content-type")),
            tolerance,
        )
    return {
        "same": found is None,
        "difference": found,
        "tolerance": tolerance.model_dump(),
        "redacted": list(serving.observe_redact),
        "status": answer.status_code,
        "prediction_id": answer.headers.get("x-prediction-id"),
    }


def question_of(row: Mapping[str, Any]) -> Question:
    """Return what to send, by the protocol that the caller spoke.

    Raises:
        NotReplayed: What was kept is no whole request of it.
    """
    surface, body, given = row["surface"], bytes(row["input"]), row["input_type"]
    model, version = quote(row["model"], safe=""), quote(row["version"], safe="")
    sent = {} if given is None else {"content-type": given}
    if surface in _NATIVE:
        return Question(f"/predict/{model}/{version}", body, sent)
    if surface == "torchserve":
        return Question(f"/predictions/{model}/{version}", body, sent)
    if surface == "v1":
        return Question(f"/v1/models/{model}/versions/{version}:{_v1_verb(row)}", body, sent)
    if surface in _OPEN_INFERENCE:
        if b"sequence_id" in body:
            raise NotReplayed("it is one of a sequence: asked again, it would change what its server knows of that")
        again = json.dumps(_without_form(_object(body))).encode()
        return Question(f"/v2/models/{model}/versions/{version}/infer", again, {"content-type": _JSON})
    if surface == "openai":
        request = {**_object(body), "model": f"{row['model']}/{row['version']}"}
        return Question(
            f"/openai/v1/{_openai_path(row, request)}", json.dumps(request).encode(), {"content-type": _JSON}
        )
    raise NotReplayed(f"what came over {surface} cannot be asked again over HTTP")


def _v1_verb(row: Mapping[str, Any]) -> str:
    """Return which of v1's calls it was: the observation does not say, but each has a form of its own."""
    if "examples" not in _object(bytes(row["input"])):
        return "predict"
    if row["output"] is None:
        raise NotReplayed("it failed, and its request does not say whether it was one to classify or to regress")
    results = _object(bytes(row["output"])).get("results") or [None]
    return "classify" if isinstance(results[0], list) else "regress"


def _openai_path(row: Mapping[str, Any], request: Mapping[str, Any]) -> str:
    found = next((path for name, path in _OPENAI_WANTED.items() if name in request), None)
    if found is None and row["output"] is not None:  # embeddings and responses both want `input`
        found = _OPENAI.get(str(_object(bytes(row["output"])).get("object")))
    if found is None:
        raise NotReplayed("neither its request nor its answer says which of OpenAI's routes it came over")
    return found


def _without_form(request: dict[str, Any]) -> dict[str, Any]:
    """Return a request without what it says of the form of its outputs, as those that are kept are JSON anyway."""
    outputs = [_no_form(each) for each in request.get("outputs") or () if isinstance(each, dict)]
    return {**_no_form(request), **({"outputs": outputs} if outputs else {})}


def _no_form(of: dict[str, Any]) -> dict[str, Any]:
    parameters = of.get("parameters")
    if not isinstance(parameters, dict):
        return of
    return {**of, "parameters": {name: value for name, value in parameters.items() if name not in _OF_FORM}}


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotReplayed("what was kept of it is no JSON object, which its protocol wants")
    return found


def _ask(question: Question, gateway: str, prediction_id: str, token: str | None, timeout_s: float) -> httpx.Response:
    sent = question.headers | headers_of(prediction_id, token=token, timeout_s=timeout_s)
    try:
        with httpx.Client(timeout=httpx.Timeout(timeout_s + 5.0, connect=5.0), trust_env=False) as client:
            return client.post(f"{gateway}{question.path}", content=question.body, headers=sent)
    except httpx.TransportError as exc:
        raise Unavailable(f"no gateway answers at {gateway}: {exc}; is `marway up` running?") from exc


def headers_of(prediction_id: str, *, token: str | None, timeout_s: float) -> dict[str, str]:
    """Return what is sent with a question beside its own headers: of which prediction, by whom, until when."""
    sent = {
        "cache-control": "no-cache",
        headers.REQUEST_ID: f"replay-{prediction_id}",
        headers.REQUEST_TIMEOUT_MS: str(max(1, int(timeout_s * 1000))),
    }
    return sent if token is None else {**sent, "authorization": f"Bearer {token}"}


def _failure_difference(row: Mapping[str, Any], answer: httpx.Response) -> str | None:
    """Return how a failure differs from that of a prediction that failed, or None: its code has to be the same."""
    if answer.is_success:
        return f"it failed ({row['error'] or row['status']}), and was answered now"
    problem = _problem(answer)
    code = None if problem is None else problem.code
    if row["error"] is None or code is None:
        # Not every protocol says the code, and gRPC has other statuses: then it is enough that it fails again.
        differs = str(row["status"]).isdigit() and str(row["status"]) != str(answer.status_code)
        return f"it failed with status {row['status']}, now with {answer.status_code}" if differs else None
    return None if code == row["error"] else f"it failed with {row['error']}, now with {code}"


def _problem(answer: httpx.Response) -> MarwayError | None:
    """Return the error that a gateway's own answer stands for; None for a model's."""
    if answer.headers.get("content-type", "").startswith(problems.CONTENT_TYPE):
        return problems.parse_problem(answer.content, status=answer.status_code)
    if answer.status_code in (401, 429) or answer.status_code >= 500:
        return Unavailable(f"the gateway answered with status {answer.status_code}: {clip(answer.text, 300)}")
    return None


def _kept(row: Mapping[str, Any], status: int) -> GoldenAnswer:
    """Return the answer as it was kept; gRPC has no statuses of HTTP, so there it counts as what came now."""
    before = str(row["status"])
    return answer_of(
        row["surface"], int(before) if before.isdigit() else status, bytes(row["output"]), row["output_type"]
    )


def answer_of(surface: str, status: int, body: bytes, content_type: str | None) -> GoldenAnswer:
    """Return an answer over a protocol without what its server puts into each, as answers are compared."""
    mime = mime_type(content_type).lower()
    kind: Kind = "json" if is_json(content_type) else "text" if mime.startswith("text/") else "bytes"
    made = GoldenAnswer.of(status=status, kind=kind, body=body, content_type=content_type)
    if surface in _OPEN_INFERENCE and isinstance(made.value, dict):
        return made.model_copy(update={"value": {"outputs": made.value.get("outputs")}})
    if surface == "openai" and isinstance(made.value, dict):
        return made.model_copy(update={"value": {k: v for k, v in made.value.items() if k not in _STAMPS}})
    return made
