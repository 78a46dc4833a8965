"""What the console's try-it form sends a prediction to: the same predictor as the public port's, on the admin port.

A body of any content type is taken here, which the admin port's guard lets through with the header
`X-Marway-Console: 1` alone: no page of a stranger can send that without asking first, and is refused.
"""

from __future__ import annotations

from typing import Any, Final

from marway_gateway.gateway import CurrentGateway
from marway_gateway.http.requests import FastPathApp
from marway_gateway.openapi import PREDICTION_ERRORS, add_served, problems
from marway_gateway.surfaces.native import NativePredict
from marway_gateway.surfaces.open_inference.passing import InferRoute
from marway_http.pages.openapi import ANSWERS, BODIES
from marway_http.tensors.v2_json import read_infer

__all__ = ["add_try_routes"]

_PATH: Final = "/console/try/{model}/{selector}"
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "The model's input, of any content type. One that is no JSON needs the header "
        "`X-Marway-Console: 1`. With `/infer` behind the path it is a request of the Open Inference Protocol v2; so is "
        "the answer.",
        "content": BODIES,
    }
}


def add_try_routes(app: FastPathApp, current: CurrentGateway) -> None:
    """Add the routes to the admin app.

    What is asked here is a prediction as any other: it has an id, is observed, is counted, and goes where the label
    sends its callers.
    """
    add_served(
        app,
        NativePredict(current),
        ((_PATH, "try_version", "Try a version or a label, as the console does"),),
        tags=["predict"],
        responses={200: {"description": "The model's own answer.", "content": ANSWERS}, **problems(*PREDICTION_ERRORS)},
        openapi_extra=_BODY,
    )
    add_served(
        app,
        InferRoute(current, surface="open_inference", read=read_infer, explain=False),
        ((f"{_PATH}/infer", "try_version_tensors", "Try a version with tensors, as the console does"),),
        include_in_schema=False,  # its errors are of another form than those of all else here: the route above says so
    )
