"""A gateway and pods for the length of one piece of work, such as asking them what another server is asked too."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from marway.process.stop_request import watch_for_stop
from marway_ops.up.home import Home
from marway_ops.up.local_cluster import LocalCluster
from marway_ops.up.plan import PlannedPod
from marway_ops.up.settings import overruled
from marway_ops.up.stopping import close, unless_stopped

__all__ = ["with_cluster"]

Result = TypeVar("Result")


def with_cluster(
    work: Callable[[str, str, threading.Event], Result],
    plan: Sequence[PlannedPod],
    *,
    registry: str,
    directory: Path,
    step: Callable[[str], None],
    noticed: Callable[[str], None],
) -> Result:
    """Start pods and a gateway before them on free ports, do some work with them, and stop them. Blocks.

    Every process has ended when this returns or raises, also upon SIGINT and SIGTERM. What they keep of predictions
    goes away with ``directory``.

    Args:
        work: Is given the URLs of the gateway's public port and of its admin port, and what tells it to end early; runs
            in a thread.
        plan: The pods.
        registry: URL of a registry that has the versions.
        directory: Where they may keep what they need; nobody else's.
        step: Told what begins.
        noticed: Told what a person should know of, such as a part that died.

    Raises:
        MarwayError: Something does not start; or what ``work`` raises.
        KeyboardInterrupt: A signal came.
    """
    found = asyncio.run(_with_cluster(work, plan, registry, directory, step, noticed))
    if not found:
        raise KeyboardInterrupt
    return found[0]


async def _with_cluster(
    work: Callable[[str, str, threading.Event], Result],
    plan: Sequence[PlannedPod],
    registry: str,
    directory: Path,
    step: Callable[[str], None],
    noticed: Callable[[str], None],
) -> list[Result]:
    for variable, _ in overruled(os.environ, ("gateway", "runtime", "sidecar")):
        noticed(f"the variable {variable} has no effect here: gateway and pods are made for this alone")
    stop = watch_for_stop()
    home = Home(directory)
    home.store.mkdir(parents=True, exist_ok=True)
    cluster = LocalCluster(
        home,
        registry=registry,
        observations=(directory / "observations").as_uri(),
        port=0,
        plan=plan,
        started=lambda what, seconds: None,
        noticed=noticed,
    )
    found: list[Result] = []
    stopped = threading.Event()

    async def all_of_it() -> None:
        step("starting a gateway and pods")
        await cluster.start()
        found.append(await asyncio.to_thread(work, cluster.gateway_url, cluster.admin_url, stopped))

    try:
        await unless_stopped(stop, all_of_it())
        step("stopping gateway and pods")
    finally:
        stopped.set()
        await close(cluster)
    return found
