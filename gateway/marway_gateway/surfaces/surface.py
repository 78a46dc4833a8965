"""What a surface is: one protocol in which clients ask for predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import grpc.aio

from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.http.error_bodies import ErrorForm
from marway_gateway.http.requests import FastPathApp

__all__ = ["AddRoutes", "RpcService", "Surface"]

AddRoutes = Callable[[FastPathApp, CurrentGateway], None]
"""Adds routes to an app."""


class RpcService(NamedTuple):
    """A gRPC service: its full name, its generated `add_…_to_server`, and what makes its servicer."""

    name: str
    add_to_server: Callable[[Any, grpc.aio.Server], None]
    servicer: Callable[[Gateway], Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """One protocol, over HTTP, gRPC or both.

    A surface is a folder or a module that makes one of these, and a line in `registered`. All else finds it there: the
    apps and the gRPC server what they serve, errors their form, the OpenAPI document what it says of its routes.

    Attributes:
        name: As metrics and logs have it.
        tag: The heading of its routes in the OpenAPI document; "" where it has none.
        about: What the document says of them.
        segments: First segments of the paths that are its own, also of those that lead nowhere.
        error_form: How it writes errors; None stands for problem documents.
        add_routes: Adds its routes to the public app.
        add_admin_routes: Adds its routes to the admin app.
        services: Its gRPC services.
        refused_rpcs: Each gives gRPC methods that are refused with a reason; reflection leaves them out.
        unparsed_rpcs: Full names of methods that are given their messages as bytes, and give bytes.
    """

    name: str
    tag: str = ""
    about: str = ""
    segments: tuple[str, ...] = ()
    error_form: ErrorForm | None = None
    add_routes: AddRoutes = lambda app, gateway: None
    add_admin_routes: AddRoutes = lambda app, gateway: None
    services: tuple[RpcService, ...] = ()
    refused_rpcs: tuple[Callable[[], grpc.GenericRpcHandler[Any, Any]], ...] = ()
    unparsed_rpcs: frozenset[str] = frozenset()
