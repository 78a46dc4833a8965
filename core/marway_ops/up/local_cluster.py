"""Pods and a gateway before them as processes: what `marway up` runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from marway.admin_client import AdminClient, token_of
from marway.errors import MarwayError
from marway_ops.up.home import LOOPBACK, Home, reserve
from marway_ops.up.local_pods import LocalPods
from marway_ops.up.plan import PlannedPod
from marway_ops.up.process import Child

__all__ = ["LocalCluster"]

# Ends before the pods do, all within the 20 s that `marway up` promises.
_GATEWAY_DRAIN_S, _GATEWAY_STOP_S = 5.0, 6.5


_KNOWN_TIMEOUT_S = 10.0
"""A gateway tries a pod that refused it again within a second or two; one that has other trouble is served without."""
_PROBE_INTERVAL_S = 0.05


class LocalCluster(LocalPods):
    """Pods and a gateway before them.

    Args:
        home: As `LocalPods` takes it, like all that is not named here.
        observations: URL of the store of observations and feedback, or None for what the gateway's settings say.
        port: The gateway's; the next two are the admin's and gRPC's. 0 takes free ones.

    Raises:
        InvalidSettings: A port is taken.
    """

    def __init__(
        self,
        home: Home,
        *,
        registry: str,
        observations: str | None = None,
        port: int,
        plan: Sequence[PlannedPod],
        config: Path | None = None,
        started: Callable[[str, float], None],
        noticed: Callable[[str], None],
    ) -> None:
        ports = reserve(port, 3)
        super().__init__(
            home, registry=registry, plan=plan, config=config, classes=home.java, started=started, noticed=noticed
        )
        self._ports += ports
        self._observations = observations
        gateway, admin, grpc = (each.number for each in ports)
        self.gateway_url, self.admin_url = f"http://{LOOPBACK}:{gateway}", f"http://{LOOPBACK}:{admin}"
        self._grpc_address = f"{LOOPBACK}:{grpc}"
        self._stages.insert(0, [self._gateway_child(gateway, admin, grpc)])
        self._answering.append({"gateway": self.gateway_url})

    async def start(self) -> None:
        """Start everything and return when all of it can serve, and the gateway knows that each pod does.

        Pods may differ in what they serve, so none must be missing when the first request comes.

        Raises:
            MarwayError: As of `LocalPods`.
        """
        await super().start()
        admin = AdminClient(self.admin_url, token=token_of(None, None))
        until = time.monotonic() + _KNOWN_TIMEOUT_S
        while time.monotonic() < until:
            with contextlib.suppress(MarwayError):
                pods = await asyncio.to_thread(admin.call, "GET", "/pods")
                if all(pod["eligible"] for pod in pods):
                    return
            await asyncio.sleep(_PROBE_INTERVAL_S)

    def ready_line(self) -> dict[str, Any]:
        """Return the document that says that the system can serve, and where."""
        return {
            "event": "ready",
            "gateway": self.gateway_url,
            "admin": self.admin_url,
            "grpc": self._grpc_address,
            "registry": self._registry,
            "pods": [{"name": pod.name, "url": pod.url, "engine": pod.engine} for pod in self.pods],
        }

    def _gateway_child(self, port: int, admin: int, grpc: int) -> Child:
        return self._child(
            "gateway",
            [
                *("gateway", "--registry", self._registry, "--host", LOOPBACK),
                *(("--observations", self._observations) if self._observations is not None else ()),
                *("--port", str(port), "--admin-port", str(admin), "--grpc-port", str(grpc)),
                *("--pods", ",".join(f"{pod.name}={pod.url}" for pod in self.pods)),
            ],
            stop_timeout_s=_GATEWAY_STOP_S,
            # No lame duck: there is no other gateway that clients could hear of.
            environment={
                "MARWAY_GATEWAY_DRAIN_TIMEOUT_S": str(_GATEWAY_DRAIN_S),
                "MARWAY_GATEWAY_LAME_DUCK_S": "0",
                "MARWAY_GATEWAY_TABLES": str(self._home.tables.absolute()),
            },
        )
