"""What pods say over their watches reaches placement and the admin port."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, Running, running
from marway.registry import Registry
from marway.wire.pods import ModelStatus, PodEvent, PodStatus
from marway_gateway.placement.pod_watch import merged
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]

POD = PodStatus(name="a", boot_id="1", backend="torchserve", ready=True)
ONE = ModelStatus(id="mv_1", name="intent", version="1.0", state="loading")
TWO = ModelStatus(id="mv_2", name="digits", version="1.0", state="ready", workers=1)


async def pod_view(gateway: Running) -> dict[str, object]:
    """Return what the admin port shows of the first pod."""
    shown: list[dict[str, object]] = (await gateway.admin.get("/pods")).json()
    return shown[0]


def test_events_add_up() -> None:
    """Changed models replace what was known of them, removed ones go, and a whole pod replaces everything."""
    assert merged(None, PodEvent(models=(ONE,))) is None
    status = merged(merged(POD, PodEvent(models=(ONE, TWO))), PodEvent())
    assert status is not None
    assert status.models == (ONE, TWO)
    ready = ONE.model_copy(update={"state": "ready"})
    status = merged(status, PodEvent(models=(ready,), removed=("mv_2", "mv_3")))
    assert status is not None
    assert status.models == (ready,)
    assert merged(status, PodEvent(pod=POD)) == POD


async def test_a_drain_is_known_without_a_health_check(registry: Registry, make_pod: MakePod) -> None:
    """A pod that says over its watch that it drains gets no more requests, long before its next health check."""
    pods = [await make_pod("a"), await make_pod("b")]
    async with running(*pods, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: all(pod.polls and pod.watches for pod in pods))
        for pod in pods:
            pod.ready, pod.draining = False, True
            pod.tell()
        while (await gateway.client.get("/readyz")).status_code == 200:
            pass
        assert [pod.polls for pod in pods] == [1, 1]
        pods[1].ready, pods[1].draining = True, False
        pods[1].tell()
        while (await gateway.client.get("/readyz")).status_code != 200:
            pass
        assert [pod.polls for pod in pods] == [1, 1]


async def test_models_are_shown_as_they_change(registry: Registry, make_pod: MakePod) -> None:
    """The admin port shows a version on its pod as soon as the pod has told of it."""
    pod = await make_pod()
    async with running(pod, registry=registry, health_interval_s=60) as gateway:
        await until(lambda: pod.polls and pod.watches)
        pod.tell(models=(TWO,))
        while True:
            status = (await pod_view(gateway))["status"]
            assert isinstance(status, dict)
            if status["models"]:
                break
    assert [model["id"] for model in status["models"]] == ["mv_2"]
    assert pod.polls == 1


@pytest.mark.parametrize("trouble", ["ends", "talks nonsense"])
async def test_a_watch_that_ends_is_opened_again(
    registry: Registry, tmp_path: Path, make_pod: MakePod, trouble: str
) -> None:
    """A watch that ended, or that said something strange, harms no request and is opened again."""
    pod = await make_pod()
    publish(registry, tmp_path)
    async with running(pod, registry=registry, health_interval_s=0.25) as gateway:
        await until(lambda: pod.watches == 1)
        if trouble == "ends":
            pod.end_watches()
        else:
            pod.tell_nonsense()
        await until(lambda: pod.watches >= 2)
        assert (await gateway.predict()).status_code == 200
