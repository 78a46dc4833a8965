"""One suite over all who call handlers: a worker, the process that proves a handler, and the test kit."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from marway.answers.encoding import as_tensor
from marway.answers.golden import ExampleInput, GoldenAnswer, Kind
from marway.archives.entries import from_file
from marway.wire.envelope import KEY, Part, Row, decode_answers
from marway.wire.headers import JSON_NONFINITE
from marway.worker.calls import described_tensor
from marway_archiver.contents.manifest import build_manifest
from marway_archiver.proving.handler_process import start_handler
from marway_archiver.testing import bytes_row, load_handler

HANDLER = """\
import torch
from ts.utils.util import PredictionException


def refuse(code):
    raise PredictionException("not this one", code)


DOES = {
    "raises": lambda context: 1 / 0,
    "refuses": lambda context: refuse(422),
    "refuses oddly": lambda context: refuse(7),
    "is out of memory": lambda context: [].append(bytearray(1 << 62)),
    "is out of GPU memory": lambda context: gpu(),
    "exits": lambda context: raise_exit(),
    "is no list": lambda context: "x",
    "is too short": lambda context: [],
    "is nothing that can be sent": lambda context: [object()],
    "is a tensor": lambda context: [torch.tensor([[1.5, 2.5]])],
    "is half a tensor": lambda context: [torch.tensor([1.5], dtype=torch.bfloat16)],
    "is text": lambda context: ["ja"],
    "is bytes": lambda context: [b"\\xff\\x00"],
    "is not finite": lambda context: [{"x": float("nan")}],
    "has a status": lambda context: context.set_response_status(418, "tea", 0) or ["no"],
    "has a status that is none": lambda context: context.set_response_status(99, "", 0) or ["no"],
    "has a type": lambda context: context.set_response_header(0, "Content-Type", "text/x") or ["no"],
    "has a header that is none": lambda context: context.set_response_header(0, "x", "a\\r\\nb: c") or ["no"],
}


def gpu():
    raise RuntimeError("CUDA out of memory")


def raise_exit():
    raise SystemExit(3)


def handle(data, context):
    if data is None:
        return None
    (row,) = data
    if isinstance(row["data"], str) and row["data"] in DOES:
        return DOES[row["data"]](context)
    headers = context.get_all_request_header(0)
    seen = {name: headers[name] for name in ("content-type", "data", "body", "explain", "url_path") if name in headers}
    return [{"value": repr(row["data"]), "same": row["body"] is row["data"], "headers": seen}]
"""

Ask = Callable[[bytes, str | None], GoldenAnswer]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("users")
    (made / "users_handler.py").write_text(HANDLER)
    return made


def in_worker(directory: Path) -> Iterator[Ask]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
        from marway_runtime.worker import log_records
        from marway_runtime.worker.service import MarwayService
    namespace: dict[str, Any] = {}
    exec(compile(HANDLER, "users_handler.py", "exec"), namespace)
    service = MarwayService("m", str(directory), None, namespace["handle"], None, 1, True, SimpleNamespace())
    service.set_cl_socket(SimpleNamespace())

    def ask(body: bytes, content_type: str | None) -> GoldenAnswer:
        headers = {JSON_NONFINITE: "allow"} | ({} if content_type is None else {"content-type": content_type})
        row = Row("asked", [Part("data", body, content_type)], headers)
        try:
            message = service.predict([{"requestId": b"r", "parameters": [{"name": KEY, "value": [row]}]}])
        except SystemExit as exc:  # of which a worker dies
            message_of_death = f"SystemExit: {exc}".encode()
            return GoldenAnswer.of(status=500, kind="error", body=message_of_death, content_type=None)
        finally:
            log_records.answering(None)
        (answer,) = decode_answers(bytes(message[message.index(b"MWE1") : -4]))
        kind: Kind = answer.kind  # type: ignore[assignment]  # one of its words
        value = answer.body
        if kind == "tensor":
            import torch

            value = described_tensor(as_tensor(torch.load(io.BytesIO(answer.body), weights_only=True)))
        return GoldenAnswer.of(status=answer.status, kind=kind, body=value, content_type=answer.content_type)

    yield ask


def in_prover(directory: Path) -> Iterator[Ask]:
    asked = [ExampleInput(body, content_type) for body, content_type in ALL]
    manifest = build_manifest(model_name="m", version="1", handler="users_handler.py")
    entries = [from_file("users_handler.py", directory / "users_handler.py")]
    with start_handler(manifest, entries, asked, load_timeout_s=120, call_timeout_s=60) as process:
        yield lambda body, content_type: process.call([ALL.index((body, content_type))]).answers[0]


def in_kit(directory: Path) -> Iterator[Ask]:
    with load_handler(directory / "users_handler.py") as handler:
        yield lambda body, content_type: handler.ask(bytes_row(body, content_type))[0].golden()


@pytest.fixture(scope="module", params=[in_worker, in_prover, in_kit])
def ask(request: pytest.FixtureRequest, directory: Path) -> Iterator[Ask]:
    """One way to have a handler called with one body."""
    yield from request.param(directory)


TEXT = "text/plain; charset=utf-8"
INPUTS = {
    "json": (b"[1, 2]", "application/json", "[1, 2]"),
    "json with parameters": (b"{}", "application/json; charset=utf-8", "{}"),
    "json that is none": (b"[1", "application/json", repr(bytearray(b"[1"))),
    "json by another name": (b"[1]", "application/problem+json", repr(bytearray(b"[1]"))),
    "text": ("\u00fc".encode(), TEXT, repr("\u00fc")),
    "text that is none": (b"\xff", "text/plain", repr(bytearray(b"\xff"))),
    "a picture": (b"\xff", "image/png", repr(bytearray(b"\xff"))),
    "no type": (b"a", None, repr(bytearray(b"a"))),
}
DEEP = (b"[" * 100_000 + b"]" * 100_000, "application/json")
ANSWERS: dict[str, tuple[int, str, str | None, str]] = {
    "raises": (500, "error", None, "ZeroDivisionError: division by zero"),
    "refuses": (422, "error", None, "not this one"),
    "refuses oddly": (500, "error", None, "not this one"),
    "is out of memory": (507, "error", None, "out of memory"),
    "is out of GPU memory": (507, "error", None, "out of GPU memory: CUDA out of memory"),
    "exits": (500, "error", None, "SystemExit: 3"),
    "is no list": (500, "error", None, "the handler returned str, not a list with one answer a row"),
    "is too short": (500, "error", None, "the handler returned 0 answers for 1 rows"),
    "is nothing that can be sent": (500, "error", None, "cannot be encoded"),
    "is a tensor": (200, "tensor", None, '{"dtype": "float32", "shape": [1, 2], "values": [[1.5, 2.5]]}'),
    "is half a tensor": (200, "tensor", None, '{"dtype": "bfloat16", "shape": [1], "values": [1.5]}'),
    "is text": (200, "text", None, '"ja"'),
    "is bytes": (200, "bytes", None, '"/wA="'),
    "is not finite": (200, "json", None, '{"x": NaN}'),
    "has a status": (418, "text", None, '"no"'),
    "has a status that is none": (500, "error", None, "the handler set the status 99"),
    "has a type": (200, "text", "text/x", '"no"'),
    "has a header that is none": (500, "error", None, "what HTTP cannot carry"),
}
ALL = [*((body, kind) for body, kind, _ in INPUTS.values()), DEEP, *((text.encode(), TEXT) for text in ANSWERS)]


@pytest.mark.parametrize("name", INPUTS)
def test_a_handler_is_given_the_same_by_all(name: str, ask: Ask) -> None:
    """Body, second name and headers are those that TorchServe's REST front end would have given."""
    body, content_type, value = INPUTS[name]
    answer = ask(body, content_type)
    assert answer.status == 200, answer.value
    mime = {"content-type": (content_type or "").partition(";")[0]}
    sent = {} if content_type is None else {"content-type": content_type}
    headers = {**sent, "data": mime, "body": mime, "explain": "False", "url_path": ""}
    assert answer.value == {"value": value, "same": True, "headers": headers}


def test_json_that_no_parser_takes_in_is_refused_by_all(ask: Ask) -> None:
    """It is the caller's fault, and no parser's limit becomes an error of the model."""
    answer = ask(*DEEP)
    assert (answer.status, answer.value) == (400, "the JSON is nested too deeply")


@pytest.mark.parametrize("name", ANSWERS)
def test_what_a_handler_does_is_answered_alike_by_all(name: str, ask: Ask) -> None:
    """What it returns, sets or raises gives the same status, kind, content type and value."""
    status, kind, content_type, text = ANSWERS[name]
    answer = ask(name.encode(), TEXT)
    assert (answer.status, answer.kind, answer.content_type) == (status, kind, content_type)
    assert text in (answer.value if kind == "error" else json.dumps(answer.value))
