"""What callers and admins are told while no pod is ready: by the manifests' own probes and Services, and a gateway."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx

from gateway.fakes import FakePod, Running, running
from marway.registry import Registry
from support.kubernetes.objects import container, named
from support.kubernetes.render import overlay
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]


async def _asked(gateway: Running, probe: str) -> int:
    """Return what a probe of the gateway's container is answered."""
    spec: dict[str, Any] = container(overlay("s3"), "gateway").spec[probe]["httpGet"]
    client: httpx.AsyncClient = {"http": gateway.client, "admin": gateway.admin}[spec["port"]]
    return (await client.get(spec["path"])).status_code


async def test_a_gateway_that_lost_its_pods_stays_to_say_so(
    registry: Registry, make_pod: MakePod, tmp_path: Path
) -> None:
    """A gateway starts once it can serve; when its last pod goes it stays in its Service, and answers 503."""
    publish(registry, tmp_path)
    pod = await make_pod(ready=False)
    async with running(pod, registry=registry, health_interval_s=0.25) as gateway:
        assert await _asked(gateway, "startupProbe") == 503
        pod.ready = True
        while await _asked(gateway, "startupProbe") != 200:
            pass
        assert await _asked(gateway, "readinessProbe") == 200
        await pod.stop()
        while (await gateway.client.get("/readyz")).status_code == 200:
            pass
        assert await _asked(gateway, "readinessProbe") == await _asked(gateway, "livenessProbe") == 200
        refused = await gateway.client.post("/predict/intent", content=b"x")
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["code"] == "no_pod_available"


async def test_admins_are_answered_before_anything_is_ready(registry: Registry) -> None:
    """A gateway that has never been ready answers on the admin port, and its Service leads there all the same."""
    assert named(overlay("s3"), "Service", "marway-gateway-admin")["spec"]["publishNotReadyAddresses"] is True
    async with running(registry=registry) as gateway:
        assert await _asked(gateway, "startupProbe") == 503
        assert (await gateway.admin.get("/pods")).status_code == 200
