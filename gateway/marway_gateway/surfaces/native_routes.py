"""The routes of Marway's own surface, as the OpenAPI document has them."""

from __future__ import annotations

from typing import Any, Final

from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import PREDICTION_ERRORS, REQUEST_HEADERS, add_served, problems
from marway_gateway.surfaces.later import PREFER, RespondsLater, add_async_routes
from marway_gateway.surfaces.native import NATIVE_PATHS, NativePredict, now_or_later
from marway_gateway.surfaces.surface import Surface
from marway_http.pages.openapi import ANSWERS, BODIES

__all__ = ["NATIVE"]

_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, of any content type: these are the usual ones. The fields of forms reach "
        "the handler under their names, anything else under `data`.",
        "content": BODIES,
    }
}
_ANSWER: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "The model's own answer: its body, status and content type. A version that streams answers in "
        "pieces as they come: with `Accept: text/event-stream` each is an event, and the last one is `end` or `error`.",
        "content": ANSWERS,
        "headers": {
            name: {"description": text, "schema": {"type": "string"}}
            for name, text in (
                ("X-Request-Id", "The caller's, or made here."),
                ("X-Model-Name", "The model that answered."),
                ("X-Model-Version", "The version that answered."),
                ("X-Model-Id", "The same version's id."),
                ("Server-Timing", "Milliseconds of resolving, of the pod and in all; what the cache did."),
                ("X-Cache", "`hit`, `miss` or `bypass`, for models whose answers may be given again."),
            )
        },
    },
    202: {
        "description": "With `Prefer: respond-async`: it is taken in, and answered where `Location` says.",
        "headers": {"Location": {"description": "`/predictions/async/ID`.", "schema": {"type": "string"}}},
    },
}


def _add_routes(app: FastPathApp, gateway: CurrentGateway) -> None:
    now = NativePredict(gateway)
    model, version = NATIVE_PATHS
    add_served(
        app,
        now_or_later(now, RespondsLater(gateway, now)),
        ((model, "predict", "Predict with a model"), (version, "predict_version", "Predict with a version or a label")),
        headers={**REQUEST_HEADERS, "prefer": PREFER},
        tags=["predict"],
        responses={**_ANSWER, **problems(*PREDICTION_ERRORS)},
        openapi_extra=_BODY,
    )
    add_async_routes(app, gateway)


NATIVE: Final = Surface(
    name="native",
    tag="predict",
    about="Ask a model: any body in, the model's own answer out.",
    add_routes=_add_routes,
)
