"""The surfaces of this gateway. One more is one more line here, and its own folder."""

from __future__ import annotations

from typing import Final

from marway_gateway.http.error_bodies import add_error_form
from marway_gateway.surfaces.grpc.prediction import PREDICTION
from marway_gateway.surfaces.native_routes import NATIVE
from marway_gateway.surfaces.open_inference.routes import OPEN_INFERENCE
from marway_gateway.surfaces.openai.routes import OPENAI
from marway_gateway.surfaces.surface import Surface
from marway_gateway.surfaces.torchserve.rest import TORCHSERVE
from marway_gateway.surfaces.v1.routes import V1

__all__ = ["SURFACES"]

SURFACES: Final[tuple[Surface, ...]] = (NATIVE, OPENAI, OPEN_INFERENCE, V1, TORCHSERVE, PREDICTION)

for _surface in SURFACES:
    if _surface.error_form is not None:
        add_error_form(_surface.name, _surface.error_form, _surface.segments)
