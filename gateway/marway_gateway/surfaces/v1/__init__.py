"""TensorFlow Serving's and KServe's v1 protocol as one surface."""

from __future__ import annotations

from typing import Final

from marway_gateway.http.error_bodies import ERROR_TEXT
from marway_gateway.surfaces.surface import Surface
from marway_gateway.surfaces.v1.routes import SURFACE, add_v1

__all__ = ["V1"]

V1: Final = Surface(
    name=SURFACE,
    tag=SURFACE,
    about="The v1 protocol of TensorFlow Serving and KServe.",
    segments=("v1",),
    error_form=ERROR_TEXT,
    add_routes=add_v1,
)
