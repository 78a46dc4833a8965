"""What the backend `mms` makes of settings, rows and Multi Model Server's answers, as the real server gave them.

`tests/backends/mms` runs the same over the real server.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from marway.deadline import Deadline
from marway.errors import (
    BodyTooLarge,
    DeadlineExceeded,
    InvalidRequest,
    InvalidSettings,
    LoadFailed,
    MarwayError,
    ModelError,
    Overloaded,
    RuntimeDown,
    Unimplemented,
)
from marway.settings import load_settings
from marway.wire.envelope import Part, Row
from marway_sidecar.backends.base import NotLoaded, ServedModel, WorkerDied
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.backends.mms.classify import classify, died_or_late
from marway_sidecar.backends.mms.management import answers_within_s
from marway_sidecar.backends.mms.server import MmsServer
from marway_sidecar.settings import SidecarSettings
from support.mms_models import MmsModels


def said(status: int, kind: str, message: str) -> tuple[int, bytes]:
    return status, json.dumps({"code": status, "type": kind, "message": message}, indent=2).encode()


MODEL = ServedModel("mv_A", "intent", "2.0", Path("a.mar"), 1, 10.0, 90.0)


@pytest.mark.parametrize(
    ("answer", "kind", "status"),
    [
        (said(404, "ModelNotFoundException", "Model not found: mv_A"), NotLoaded, None),
        (said(503, "ServiceUnavailableException", "No worker is available to serve request"), Overloaded, None),
        (said(500, "InternalServerException", "Worker died."), WorkerDied, None),
        (said(507, "InternalServerException", "Out of resources"), ModelError, 507),
        (said(503, "InternalServerException", "Prediction failed"), ModelError, 500),
        (said(503, "InternalServerException", "Unsupported model output data type."), ModelError, 500),
        (said(422, "InternalServerException", "refused"), ModelError, 422),
        (said(400, "BadRequestException", "Invalid HTTP message."), InvalidRequest, None),
        ((413, b""), BodyTooLarge, None),
        ((418, b"a,b"), None, None),
        ((503, b'{"code": 503, "message": "the handler own"}'), None, None),
        ((200, said(200, "InternalServerException", "x")[1]), None, None),
        ((500, b"[1]"), None, None),
    ],
)
def test_the_table_of_errors(answer: tuple[int, bytes], kind: type[MarwayError] | None, status: int | None) -> None:
    """Each of the server's answers is an error of ours about the version, or the handler's own answer."""
    error = classify(*answer, MODEL)
    assert (type(error) if error is not None else None) is kind
    if error is not None:
        assert (error.model, error.version, getattr(error, "status", None)) == ("intent", "2.0", status)


def test_a_worker_that_died_late_was_too_slow() -> None:
    """The server ends a worker after whole minutes, and says then that it died."""
    died = WorkerDied("died")
    assert answers_within_s(MODEL) == 120
    assert died_or_late(died, MODEL, after_s=119, within_s=120) is died
    assert isinstance(died_or_late(died, MODEL, after_s=120, within_s=120), DeadlineExceeded)


@pytest.mark.parametrize(
    ("settings", "missing"),
    [({}, "mms_inference and mms_management is not set"), ({"mms_inference": "http://a"}, "mms_management is not set")],
)
def test_it_needs_both_addresses(settings: dict[str, str], missing: str) -> None:
    """A backend without an address says which."""
    with pytest.raises(InvalidSettings, match=missing):
        open_backend(load_settings(SidecarSettings, backend="mms", **settings))  # type: ignore[arg-type]


Answers = Callable[[httpx.Request], httpx.Response]


def server_that(monkeypatch: pytest.MonkeyPatch, answers: Answers) -> MmsServer:
    """Return a client of a server that answers so."""
    made = httpx.AsyncClient

    def client(**options: Any) -> httpx.AsyncClient:
        return made(**options, transport=httpx.MockTransport(answers))

    monkeypatch.setattr(httpx, "AsyncClient", client)
    return MmsServer("http://inference", "http://management")


async def test_models_are_listed_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """All names are there, however many pages they take; one that was lost tells another server."""
    pages = {"0": (["mv_A", "mv_B"], "2"), "2": (["mv_C"], None)}

    def answers(request: httpx.Request) -> httpx.Response:
        if request.url.path != "/models":
            return httpx.Response(
                200, json={"workers": [{"status": "READY", "memoryUsage": 7}, {"status": "UNLOADING"}]}
            )
        names, following = pages[request.url.params["next_page_token"]]
        more = {"nextPageToken": following} if following else {}
        return httpx.Response(200, json={"models": [{"modelName": name, "modelUrl": "x"} for name in names], **more})

    server = server_that(monkeypatch, answers)
    status = await server.status()
    assert status.server_names == {"mv_A", "mv_B", "mv_C"}
    assert [(each.server_name, each.private_bytes) for each in status.workers] == [
        ("mv_A", 7),
        ("mv_B", 7),
        ("mv_C", 7),
    ]
    described = await server.describe(MODEL)
    assert described is not None
    assert (described.workers, described.ready_workers) == (2, 1)
    assert await server.is_same(timeout_s=1)
    server._registered.add("mv_D")
    assert not await server.is_same(timeout_s=1)
    await server.aclose()


async def test_a_version_that_cannot_be_loaded_is_told_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An archive that the server does not see, a handler that fails and one that is never up each say so, and go."""
    asked: list[str] = []
    refusals = {
        "unseen": said(404, "ModelNotFoundException", "Model not found in model store: a.mar"),
        "failing": said(500, "InternalServerException", "Failed to start workers"),
    }
    case = ""

    def answers(request: httpx.Request) -> httpx.Response:
        asked.append(request.method)
        if request.method != "POST":
            return httpx.Response(404, json={"code": 404, "type": "ModelNotFoundException", "message": "no"})
        if case == "slow":
            raise httpx.ReadTimeout("slow", request=request)
        status, body = refusals[case]
        return httpx.Response(status, content=body)

    server = server_that(monkeypatch, answers)
    model = MmsModels(tmp_path).model("m")
    hints = {
        "unseen": "model_store must be the directory that archive_store names",
        "failing": "Failed to start workers: the handler's traceback is in the server's log",
        "slow": "no worker of it was up within 60 s",
    }
    for each, hint in hints.items():
        case = each
        with pytest.raises(LoadFailed, match=hint) as raised:
            await server.load(model)
        assert raised.value.model == model.name
        assert asked[-2:] == ["POST", "DELETE"]
    model.archive.write_bytes(b"no zip")
    with pytest.raises(LoadFailed, match="cannot be loaded: File is not a zip file"):
        await server.load(model)
    await server.aclose()


async def test_what_it_has_not_and_what_comes_too_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """An explanation, a deadline that has passed, and a connection that is closed are errors of their own."""
    server = server_that(monkeypatch, lambda request: httpx.Response(200, content=b"x"))
    row = Row("r", [Part("data", b"x")], {"explain": "True"})
    with pytest.raises(Unimplemented, match="no explanations"):
        await server.predict(MODEL, [row], Deadline.after(1))
    with pytest.raises(DeadlineExceeded):
        await server.predict(MODEL, [Row("r", [Part("data", b"x")])], Deadline.after(0))
    await server.aclose()
    with pytest.raises(RuntimeDown):
        await server.predict(MODEL, [Row("r", [Part("data", b"x")])], Deadline.after(1))
