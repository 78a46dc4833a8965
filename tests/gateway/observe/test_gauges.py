"""What a gateway shows of its pods, of the registry and of labels."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.fakes import FakePod, Running, free_port, running
from marway.registry import Registry
from marway.wire.pods import PodStatus
from marway_gateway.placement.pod import Pod
from marway_gateway.settings import PodAddress
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]


async def pods(gateway: Running) -> dict[str, float]:
    """Return how many pods are in each state that any is in."""
    states = ("ready", "unknown", "not_ready", "draining", "ejected", "unreachable")
    counted = {state: await gateway.metric(f'marway_gateway_pods{{state="{state}"}}') for state in states}
    return {state: count for state, count in counted.items() if count}


@pytest.mark.timeout(60)
async def test_pods_by_state(registry: Registry, make_pod: MakePod) -> None:
    """Every pod is counted once, in the state that decides whether it gets requests, and follows what it says."""
    made = [await make_pod("a"), await make_pod("b", ready=False), await make_pod("c", draining=True)]
    nobody = PodAddress("d", f"http://127.0.0.1:{free_port()}")
    async with running(*made, nobody, registry=registry, health_interval_s=0.25) as gateway:
        while await pods(gateway) != {"ready": 1, "not_ready": 1, "draining": 1, "unreachable": 1}:
            pass
        made[1].ready = True
        made[1].tell()
        while await pods(gateway) != {"ready": 2, "draining": 1, "unreachable": 1}:
            pass


def test_a_pods_state_in_one_word() -> None:
    """A pod that has said nothing yet is unknown; of several troubles the state names the one that `trouble` names."""
    pod = Pod(PodAddress("a", "http://127.0.0.1:1"))
    assert (pod.state(0.0), pod.trouble(0.0)) == ("unknown", None)
    pod.status = PodStatus(name="a", boot_id="1", backend="torchserve", ready=True)
    assert (pod.state(0.0), pod.trouble(0.0)) == ("ready", None)
    pod.ejected_until = 10.0
    assert [pod.state(now) for now in (9.9, 10.0)] == ["ejected", "ready"]
    pod.status = pod.status.model_copy(update={"draining": True})
    assert pod.state(0.0) == "draining"
    assert pod.trouble(0.0) == "is draining"
    pod.unreachable = "does not answer"
    assert (pod.state(0.0), pod.trouble(0.0)) == ("unreachable", "does not answer")


async def test_labels_of_models_in_use(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """A label is shown with its version once its model was asked for, and with the new one once it has moved."""
    for name in ("intent", "digits"):
        publish(registry, tmp_path, name)
    async with running(await make_pod(), registry=registry) as gateway:
        await gateway.predict("/predict/nix")
        assert "label_info{" not in (await gateway.client.get("/metrics")).text
        await gateway.predict("/predict/intent/1.0")
        shown = 'marway_gateway_label_info{label="PROD",model="intent",version="%s"}'
        assert await gateway.metric(shown % "1.0") == 1
        publish(registry, tmp_path, "intent", "2.0")
        while await gateway.metric(shown % "2.0") != 1:
            await gateway.predict()
        text = (await gateway.client.get("/metrics")).text
        assert text.count("marway_gateway_label_info{") == 1, "neither the old version nor a model that nobody uses"


@pytest.mark.timeout(60)
async def test_time_since_the_registry_answered(registry: Registry, make_pod: MakePod, tmp_path: Path) -> None:
    """It is 0 while the registry answers, and grows while it is away and the last known state serves on."""
    publish(registry, tmp_path)
    name = "marway_gateway_registry_stale_seconds"
    async with running(await make_pod(), registry=registry) as gateway:
        await gateway.predict()
        assert await gateway.metric(name) == 0
        (tmp_path / "registry").rename(tmp_path / "away")
        (tmp_path / "registry").write_text("no directory")
        while not await gateway.metric(name):
            assert (await gateway.predict()).status_code == 200
        before = await gateway.metric(name)
        assert await gateway.metric(name) > before
        (tmp_path / "registry").unlink()
        (tmp_path / "away").rename(tmp_path / "registry")
        while await gateway.metric(name):
            await gateway.predict()
