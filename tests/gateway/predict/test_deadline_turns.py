"""A deadline that passes in any turn of the event loop, from a call's first one until it is at its pod."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from gateway.fakes import FakePod, hang, running
from marway.registry import Registry
from marway_gateway.predict.cancel_scope import CancelScope, DeadlineTimer
from marway_gateway.proto import prediction_pb2, prediction_pb2_grpc
from marway_gateway.transport import Upstream
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]
BEYOND = 5
"""Turns that are tried after the first in which the request was at the pod."""


@pytest.fixture(autouse=True)
def published(registry: Registry, tmp_path: Path) -> None:
    publish(registry, tmp_path)


@pytest.fixture
def expire_in(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Has each deadline pass after so many turns of the loop as the list's last item says."""
    turns = [0]

    def count(scope: CancelScope, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(count, scope, left - 1)
        else:
            scope._expire()

    monkeypatch.setattr(DeadlineTimer, "add", lambda self, scope: count(scope, turns[-1]))
    return turns


@pytest.fixture
def transports(monkeypatch: pytest.MonkeyPatch) -> list[Upstream]:
    """What asked pods."""
    found: list[Upstream] = []
    predict = Upstream.predict

    def seen(self: Upstream, *args: Any, **options: Any) -> Any:
        found.append(self)
        return predict(self, *args, **options)

    monkeypatch.setattr(Upstream, "predict", seen)
    return found


@pytest.mark.parametrize("surface", ["http", "grpc"])
async def test_nothing_is_left_at_the_pod(
    registry: Registry, make_pod: MakePod, expire_in: list[int], transports: list[Upstream], surface: str
) -> None:
    """The call ends with that error, and what came to the pod ends there: while it resolves, connects, sends, waits."""
    pod = await make_pod(behave=hang)
    reached = 0
    async with (
        running(pod, registry=registry) as gateway,
        grpc.aio.insecure_channel(gateway.addresses.grpc) as channel,
    ):
        stub = prediction_pb2_grpc.PredictionServiceStub(channel)
        while reached <= BEYOND:
            if surface == "grpc":
                with pytest.raises(grpc.aio.AioRpcError, match="deadline") as caught:
                    await stub.Predict(prediction_pb2.PredictRequest(runId="intent", document="x"), timeout=60)
                assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            else:
                assert (await gateway.predict()).json()["code"] == "deadline_exceeded"
            reached += bool(pod.requests)
            if transports:
                await transports[-1].aclose()  # the next one connects anew
            expire_in.append(expire_in[-1] + 1)
            assert expire_in[-1] < 1000, "no request came to the pod"
        await until(lambda: pod.cancelled == len(pod.requests))
        assert await gateway.metric("marway_gateway_requests_in_flight") == 0
