"""A gateway over a large registry: how long resolving takes, how much memory it costs, how long a pod is chosen.

A real gateway process over a registry in a directory with 10,000 models, and a pod of this process that answers at
once. Every model is asked for once, which fills the caches; then requests go to models in use. The times are those
that the gateway says in `Server-Timing`. Then, in this process, pods are chosen for the same models among 100.

    python benchmarks/bench_gateway.py --models 10000 --requests 20000 --pods 100
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

RESOLVE_GOAL_MS, RSS_GOAL_MIB, CHOOSE_GOAL_US = 1.0, 300, 20
IN_USE = 100
"""So few that each is asked for again within the two seconds for which its labels may be cached."""
VERSION = "1.0"


def fill(root: Path, models: int) -> None:
    """Write a registry as publishing would leave it, without its fsyncs, which 10,000 times take minutes."""
    from marway.records import ModelState, Pointer
    from marway.registry import keys
    from marway.registry.encoding import encode
    from support.registry import record_of

    for number in range(models):
        name = model(number)
        record = record_of(name.encode(), name=name, version=VERSION, algorithm="forest", framework="sklearn")
        objects = {
            keys.record_key(name, VERSION): encode(record),
            keys.pointer_key(name): encode(Pointer(kind="name", model=name)),
            keys.state_key(name): encode(ModelState(generation=1, labels={"PROD": VERSION})),
        }
        for key, data in objects.items():
            path = root / key
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


def model(number: int) -> str:
    return f"model-{number:05d}"


async def resolve(root: Path, home: Path, models: int, requests: int) -> tuple[list[float], list[float], float]:
    """Return milliseconds of each first and each later resolve, and the gateway's memory in MiB."""
    import aiohttp
    import psutil

    from gateway.fakes import FakePod
    from support.gateways import GatewayProcess
    from support.registry import until

    pod = FakePod("pod")
    await pod.start()
    gateway = GatewayProcess(home, registry=root.as_uri(), pods=[f"{pod.name}={pod.url}"], access_log="false")
    try:
        await asyncio.to_thread(gateway.__enter__)
        async with aiohttp.ClientSession(gateway.url) as session:

            async def ask(number: int) -> float:
                async with session.post(f"/predict/{model(number)}", data=b"hello") as answer:
                    await answer.read()
                    assert answer.status == 200
                    timing = answer.headers["server-timing"]
                pod.requests.clear()
                return float(timing.partition("resolve;dur=")[2].partition(",")[0])

            first = [await ask(number) for number in range(models)]
            in_use = random.sample(range(models), min(models, IN_USE))
            for number in in_use:
                await ask(number)
            later = [await ask(random.choice(in_use)) for _ in range(requests)]
        memory = psutil.Process(gateway.process.pid).memory_info().rss / 2**20
    finally:
        await asyncio.to_thread(gateway.__exit__)
        await pod.stop()
        await until(lambda: gateway.process.poll() is not None)
    return first, later, memory


def choose(models: int, requests: int, pods: int) -> list[float]:
    """Return the microseconds of each choice; each pod has a share of the models ready, and work in hand."""
    from marway.wire.pods import ModelStatus, PodStatus
    from marway_gateway.placement import Ejection, PlacementSpec, PodSet
    from marway_gateway.settings import PodAddress

    addresses = [PodAddress(f"pod-{number}", f"http://10.0.0.{number}:9000") for number in range(pods)]
    chosen = PodSet(addresses, ejection=Ejection(after_failures=5, eject_s=30, eject_max_s=300))
    ready: dict[str, list[ModelStatus]] = {pod.name: [] for pod in chosen.pods}
    specs = [PlacementSpec((model(number), VERSION), "torchserve", pods=1 + number % 3) for number in range(models)]
    for pod in chosen.pods:
        chosen.observe(pod, PodStatus(name=pod.name, boot_id="1", backend="torchserve", ready=True), asked_at=0)
    for spec in specs:
        name, version = spec.key
        for pod in chosen.order_of(spec)[: spec.pods + 1]:
            ready[pod.name].append(ModelStatus(id=f"mv-{name}", name=name, version=version, state="ready"))
    for pod in chosen.pods:
        assert pod.status is not None
        status = pod.status.model_copy(update={"models": tuple(ready[pod.name])})
        chosen.observe(pod, status, asked_at=0)
        for _ in range(random.randrange(24)):
            pod.begin(("other", VERSION))
    took = []
    for _ in range(requests):
        spec = random.choice(specs)
        began = time.perf_counter_ns()
        pod = chosen.choose(spec)
        took.append((time.perf_counter_ns() - began) / 1000)
        assert pod is not None
    return took


def main() -> None:
    from support.open_loop import percentile

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--pods", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "registry"
        fill(root, options.models)
        first, later, memory = asyncio.run(resolve(root, Path(directory) / "home", options.models, options.requests))
    took = choose(options.models, options.requests, options.pods)
    print(f"resolve, first:   p50 {percentile(first, 50):.3f} ms, p99 {percentile(first, 99):.3f} ms")
    print(
        f"resolve, warm:    p50 {percentile(later, 50):.3f} ms, p99 {percentile(later, 99):.3f} ms "
        f"(goal: p99 under {RESOLVE_GOAL_MS:g} ms)"
    )
    print(f"gateway's memory: {memory:.0f} MiB with {options.models} models (goal: under {RSS_GOAL_MIB} MiB)")
    print(
        f"choosing a pod:   p50 {percentile(took, 50):.1f} µs, p99 {percentile(took, 99):.1f} µs of {options.pods} "
        f"(goal: under {CHOOSE_GOAL_US} µs)"
    )


if __name__ == "__main__":
    main()
