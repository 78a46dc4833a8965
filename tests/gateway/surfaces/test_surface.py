"""A surface is one module and one registration: all else finds there what it serves and how it fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.registry import Registry
from marway_gateway.gateway import Gateway
from marway_gateway.http import error_bodies
from marway_gateway.http.error_bodies import ERROR_TEXT, add_error_form
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import PREDICTION_ERRORS, add_served, error_responses
from marway_gateway.surfaces.native import NativePredict
from marway_gateway.surfaces.registered import SURFACES
from marway_gateway.surfaces.surface import Surface
from support.registry import publish


def _add_routes(app: FastPathApp, gateway: Callable[[], Gateway]) -> None:
    routes = (("/x/{model}/y/z", "x_predict", "Predict as x does"),)
    responses = error_responses(ERROR_TEXT, *PREDICTION_ERRORS)
    add_served(app, NativePredict(gateway, surface="x"), routes, tags=["x"], responses=responses)


async def test_one_more_surface(
    registry: Registry,
    tmp_path: Path,
    make_pod: Callable[..., Awaitable[FakePod]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A route with text behind its parameter is served, counted, documented, and fails in its own form."""
    publish(registry, tmp_path)
    x = Surface(name="x", tag="x", about="X.", segments=("x",), error_form=ERROR_TEXT, add_routes=_add_routes)
    monkeypatch.setattr("marway_gateway.app.SURFACES", (*SURFACES, x))
    monkeypatch.setattr(error_bodies, "_FORMS", dict(error_bodies._FORMS))
    monkeypatch.setattr(error_bodies, "_SURFACES", dict(error_bodies._SURFACES))
    add_error_form(x.name, ERROR_TEXT, x.segments)
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        answer = await gateway.predict("/x/intent/y/z", b"hello")
        unknown = await gateway.predict("/x/itent/y/z", b"hello")
        nothing = await gateway.client.post("/x/intent/y", content=b"hello")
        document = (await gateway.client.get("/openapi.json")).json()
        labels = 'model="intent",outcome="ok",surface="x",version="1.0"'
        assert await gateway.metric(f"marway_gateway_request_duration_seconds_count{{{labels}}}") == 1
    assert (answer.status_code, answer.content) == (200, b"hello")
    assert (unknown.status_code, list(unknown.json())) == (404, ["error"])
    assert (nothing.status_code, list(nothing.json())) == (404, ["error"])
    operation = document["paths"]["/x/{model}/y/z"]["post"]
    assert (operation["tags"], operation["operationId"]) == (["x"], "x_predict")
    assert {"name": "x", "description": "X."} in document["tags"]
