from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, free_port, running
from marway.errors import Draining, NoPodAvailable, RegistryUnavailable
from marway.objects import DirectoryStore
from marway.records import Pointer
from marway.registry import Registry
from marway.resolve.reader import RegistryReader
from marway.wire.pods import PodStatus
from marway_gateway.health import Readiness
from marway_gateway.placement import Ejection, PodSet
from marway_gateway.settings import PodAddress
from support.registry import publish, until

MakePod = Callable[..., Awaitable[FakePod]]


async def test_ready(registry: Registry, make_pod: MakePod) -> None:
    """A gateway with a readable registry and a pod that says it is ready is ready."""
    pod = await make_pod()
    async with running(pod, registry=registry) as gateway:
        while (await gateway.client.get("/readyz")).status_code != 200:
            pass
        assert (await gateway.client.get("/readyz")).json() == {"status": "ok"}


async def test_not_ready_without_pods(registry: Registry) -> None:
    """Without pods a gateway is alive but not ready, and says why and when to ask again."""
    async with running(registry=registry) as gateway:
        assert (await gateway.client.get("/healthz")).json() == {"status": "ok"}
        assert (await gateway.admin.get("/healthz")).json() == {"status": "ok"}
        refused = await gateway.client.get("/readyz")
    assert refused.status_code == 503
    assert refused.json()["code"] == "no_pod_available"
    assert "no pods are configured" in refused.json()["detail"]
    assert refused.headers["retry-after"] == "1"


async def test_readiness_follows_the_pods(registry: Registry, make_pod: MakePod) -> None:
    """A gateway is ready exactly while one of its pods is."""
    pod = await make_pod(ready=False)
    async with running(pod, registry=registry, health_interval_s=0.25) as gateway:
        await until(lambda: pod.polls > 1)
        refused = await gateway.client.get("/readyz")
        assert "pod a says it is not ready" in refused.json()["detail"]
        pod.ready = True
        while (await gateway.client.get("/readyz")).status_code != 200:
            pass
        await pod.stop()
        while (await gateway.client.get("/readyz")).status_code == 200:
            pass


async def test_strange_status(registry: Registry, make_pod: MakePod) -> None:
    """A pod whose status cannot be read is not ready, and the gateway says so."""
    pod = await make_pod(status_code=500)
    async with running(pod, registry=registry, health_interval_s=0.25) as gateway:
        await until(lambda: pod.polls > 1)
        refused = await gateway.client.get("/readyz")
    assert "pod a answered a health check with status 500" in refused.json()["detail"]


async def test_pod_that_hangs(registry: Registry, make_pod: MakePod) -> None:
    """A pod that leaves health checks without an answer is out after two of them, and back with its next answer."""
    pod = await make_pod()
    async with running(pod, registry=registry, health_interval_s=0.25) as gateway:
        while (await gateway.client.get("/readyz")).status_code != 200:
            pass
        before, pod.silent = pod.polls, True
        while (refused := await gateway.client.get("/readyz")).status_code == 200:
            pass
        assert pod.polls >= before + 2
        assert "pod a did not answer a health check within 0.25 s" in refused.json()["detail"]
        pod.silent = False
        while (await gateway.client.get("/readyz")).status_code != 200:
            pass


async def test_pods_are_shown(registry: Registry, make_pod: MakePod) -> None:
    """The admin port shows every pod with its state and what is wrong with it."""
    pod = await make_pod()
    dead = PodAddress("dead", f"http://127.0.0.1:{free_port()}")
    async with running(pod, dead, registry=registry, health_interval_s=0.25) as gateway:
        while True:
            shown = (await gateway.admin.get("/pods")).json()
            if shown[0]["status"] and shown[1]["trouble"]:
                break
    assert [each["name"] for each in shown] == ["a", "dead"]
    assert (shown[0]["url"], shown[0]["eligible"], shown[0]["trouble"]) == (pod.url, True, None)
    assert shown[0]["status"]["backend"] == "torchserve"
    assert (shown[1]["eligible"], shown[1]["trouble"], shown[1]["status"]) == (False, "refused the connection", None)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class AwayRegistry(Registry):
    away = True

    def pointer(self, id_or_name: str) -> Pointer | None:
        if self.away:
            raise RegistryUnavailable("the store is away")
        return super().pointer(id_or_name)


@pytest.mark.parametrize(("bound", "stays_ready"), [(None, True), (60.0, False)])
async def test_registry_away(tmp_path: Path, bound: float | None, stays_ready: bool) -> None:
    """A registry never read makes a gateway unready, one that went away only past its bound, and draining always."""
    registry, clock = AwayRegistry(DirectoryStore(tmp_path)), Clock()
    publish_into = Registry(DirectoryStore(tmp_path))
    publish(publish_into, tmp_path)
    reader = RegistryReader(registry, threads=1, clock=clock)
    pods = PodSet(
        [PodAddress("a", "http://a")],
        ejection=Ejection(after_failures=5, eject_s=30, eject_max_s=300),
        clock=clock,
    )
    readiness = Readiness(pods, reader, max_stale_s=bound, wait_s=5, retry_after_s=1, clock=clock)
    assert isinstance(await readiness.trouble(), RegistryUnavailable)
    registry.away = False
    assert isinstance(await readiness.trouble(), NoPodAvailable)
    pods.observe(pods.pods[0], PodStatus(name="a", boot_id="1", backend="torchserve", ready=True), asked_at=0)
    assert await readiness.trouble() is None
    registry.away = True
    clock.now += 59
    assert await readiness.trouble() is None
    clock.now += 2
    assert (await readiness.trouble() is None) is stays_ready
    registry.away, readiness.draining = False, True
    assert isinstance(await readiness.trouble(), Draining)
    await reader.aclose()
