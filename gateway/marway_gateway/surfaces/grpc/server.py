"""The gRPC port: the services, with health (grpc.health.v1) and reflection."""

from __future__ import annotations

import asyncio

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from marway.errors import InvalidSettings
from marway_gateway.gateway import Gateway
from marway_gateway.surfaces.grpc.interceptors import FieldBound, TokenInterceptor
from marway_gateway.surfaces.registered import SURFACES
from marway_gateway.tasks import TaskSet

__all__ = ["GrpcServer"]

_MESSAGE_OVERHEAD_BYTES = 64 * 1024
_KEEPALIVE_MS = 20_000
_SERVICES = tuple(service.name for surface in SURFACES for service in surface.services)


class GrpcServer:
    """A gRPC server over a gateway; of port 0 a free one is picked, and `port` says which once it is started."""

    def __init__(self, gateway: Gateway, *, host: str, port: int) -> None:
        self.port = port
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
        tokens = settings.predict_tokens_file
        server = grpc.aio.server(
            interceptors=[
                *([] if tokens is None else [TokenInterceptor(self._gateway.token_files[tokens])]),
                FieldBound(unparsed=frozenset[str]().union(*(surface.unparsed_rpcs for surface in SURFACES))),
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
        for surface in SURFACES:
            for service in surface.services:
                service.add_to_server(service.servicer(self._gateway), server)
            server.add_generic_rpc_handlers([refused() for refused in surface.refused_rpcs])
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection((*_SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
        address = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self.port = server.add_insecure_port(f"{address}:{self.port}")
        except RuntimeError as exc:
            raise InvalidSettings(
                f"cannot listen on {self._host}:{self.port} for gRPC: another program has the port, or the address "
                "is not this machine's; give --grpc-port another"
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
        for service in ("", *_SERVICES):
            await self._health.set(service, status)
