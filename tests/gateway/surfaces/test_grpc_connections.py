"""Connections to the gRPC port: only so many, none for ever, and none that the HTTP ports would miss."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.fakes import FakePod, running
from marway.registry import Registry

MakePod = Callable[..., Awaitable[FakePod]]

pytestmark = pytest.mark.timeout(120)


def check(channel: grpc.aio.Channel) -> grpc.aio.UnaryUnaryCall[health_pb2.HealthCheckRequest, object]:
    """Ask whether the server is healthy, once there is a connection."""
    stub = health_pb2_grpc.HealthStub(channel)
    return stub.Check(health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True)


async def test_a_connection_without_calls_ends(registry: Registry, make_pod: MakePod) -> None:
    """A client whose connection was idle is told to connect anew, and its next call does so."""
    async with (
        running(await make_pod(), registry=registry, grpc_idle_s=1) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        await check(channel)
        await asyncio.wait_for(channel.wait_for_state_change(grpc.ChannelConnectivity.READY), 60)
        await check(channel)


async def test_fault_grpc_connections_that_never_end(registry: Registry, make_pod: MakePod) -> None:
    """One more than there may be is closed at once; those that never speak are closed soon, and leave their places."""
    async with running(await make_pod(), registry=registry, grpc_max_connections=2, header_timeout_s=2) as gateway:
        host, _, port = gateway.addresses.grpc.rpartition(":")
        silent = [await asyncio.open_connection(host, int(port)) for _ in range(2)]
        for reader, _ in silent:
            assert await reader.readexactly(9)  # the server's first frame: the connection was let in
        more, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionResetError):
            assert await more.read() == b""
        writer.close()
        assert (await gateway.client.get("/healthz")).status_code == 200
        async with grpc.aio.insecure_channel(gateway.addresses.grpc) as channel:
            await check(channel)
        for reader, writer in silent:
            await reader.read()
            writer.close()
