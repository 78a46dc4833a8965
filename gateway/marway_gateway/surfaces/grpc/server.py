"""The gRPC ports: their services, with health (grpc.health.v1) and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marway.errors import InvalidSettings
from marway_gateway.gateway import Gateway
from marway_gateway.settings import GatewaySettings
from marway_gateway.surfaces.grpc.interceptors import FieldBound, TokenInterceptor
from marway_gateway.surfaces.registered import SURFACES
from marway_gateway.surfaces.surface import RpcService
from marway_gateway.surfaces.torchserve.managing.grpc import MANAGEMENT
from marway_gateway.tasks import TaskSet

__all__ = ["GrpcServer", "Served", "management", "predictions"]

_MESSAGE_OVERHEAD_BYTES = 64 * 1024
_KEEPALIVE_MS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What a gRPC port serves.

    Attributes:
        services: Its services; health and reflection come with them.
        refused: Each gives gRPC methods that are refused with a reason.
        unparsed: Full names of methods that are given their messages as bytes, and give bytes.
        tokens: The file with the tokens that it wants, or None.
        flag: What gives it another port, for the message that it is taken.
    """

    services: tuple[RpcService, ...]
    refused: tuple[Callable[[], grpc.GenericRpcHandler[Any, Any]], ...] = ()
    unparsed: frozenset[str] = frozenset()
    tokens: Path | None
    flag: str


def predictions(settings: GatewaySettings) -> Served:
    """Return what the port of predictions serves."""
    return Served(
        services=tuple(service for surface in SURFACES for service in surface.services),
        refused=tuple(refused for surface in SURFACES for refused in surface.refused_rpcs),
        unparsed=frozenset[str]().union(*(surface.unparsed_rpcs for surface in SURFACES)),
        tokens=settings.predict_tokens_file,
        flag="--grpc-port",
    )


def management(settings: GatewaySettings) -> Served:
    """Return what the port beside the admin port serves, where `torchserve_management` is on."""
    return Served(
        services=(MANAGEMENT,),
        tokens=settings.admin_tokens_file,
        flag="admin_grpc_port (MARWAY_GATEWAY_ADMIN_GRPC_PORT)",
    )


class GrpcServer:
    """A gRPC server over a gateway; of port 0 a free one is picked, and `port` says which once it is started."""

    def __init__(self, gateway: Gateway, served: Served, *, host: str, port: int) -> None:
        self.port = port
        self._served = served
        self._names = tuple(service.name for service in served.services)
        self._gateway = gateway
        self._host = host
        self._server: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]  # imported conditionally there
        self._tasks = TaskSet()

    async def start(self) -> None:
        """Begin to serve.

        Raises:
            InvalidSettings: The port is taken, or the address cannot be used.
        """
        settings = self._gateway.settings
        limit = settings.max_body_bytes + _MESSAGE_OVERHEAD_BYTES
        served = self._served
        server = grpc.aio.server(
            interceptors=[
                *([] if served.tokens is None else [TokenInterceptor(self._gateway.token_files[served.tokens])]),
                FieldBound(unparsed=served.unparsed),
            ],
            options=(
                ("grpc.max_receive_message_length", limit),
                ("grpc.max_send_message_length", limit),
                # Each connection is a file, of which the HTTP ports need some as well. An idle one is closed after
                # between one and two times of this.
                ("grpc.max_allowed_incoming_connections", settings.grpc_max_connections),
                ("grpc.max_connection_idle_ms", int(settings.grpc_idle_s * 1000)),
                ("grpc.server_handshake_timeout_ms", int(settings.header_timeout_s * 1000)),
                # Who is gone without a word is found out, also under a call.
                ("grpc.keepalive_time_ms", _KEEPALIVE_MS),
                ("grpc.keepalive_timeout_ms", _KEEPALIVE_MS),
                # Or two gateways on one port would silently share its connections, as the processes of one do.
                ("grpc.so_reuseport", int(self._gateway.peers is not None)),
            ),
        )
        for service in served.services:
            service.add_to_server(service.servicer(self._gateway), server)
        server.add_generic_rpc_handlers([refused() for refused in served.refused])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        address = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = server.add_insecure_port(f"{address}:{self.port}")
        except RuntimeError as exc:
            raise InvalidSettings(
                f"cannot listen on {self._host}:{self.port} for gRPC: another program has the port, or the address "
                f"is not this machine's; give {served.flag} another"
            ) from exc
        await self._show_health()
        await server.start()
        self._server = server
        self._tasks.start("grpc-health", self._watch_health)

    async def stop(self, grace_s: float) -> None:
        """Take no further calls, give those in flight ``grace_s`` seconds, and end; a second call does nothing."""
        server, self._server = self._server, None
        await self._tasks.aclose()
        await self._health.enter_graceful_shutdown()
        if server is not None:
            await server.stop(grace_s)

    async def _watch_health(self) -> None:
        while True:
            await self._show_health()
            await asyncio.sleep(self._gateway.settings.health_interval_s)

    async def _show_health(self) -> None:
        serving = await self._gateway.readiness.trouble() is None
        status = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for service in ("", *self._names):
            await self._health.set(service, status)
