"""What must hold of placement whatever pods, versions and loads there are."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from marway.wire.pods import ModelStatus, PodStatus
from marway_gateway.placement import Ejection, PlacementSpec, Pod, PodSet
from marway_gateway.settings import PodAddress

pod_names = st.lists(st.from_regex(r"[a-z]{1,8}-[0-9]{1,3}", fullmatch=True), min_size=1, max_size=12, unique=True)
VERSIONS = [(f"model-{number}", f"{number % 3}.0") for number in range(400)]
SPILL, FACTOR = 4, 1.25
Version = tuple[str, str]
Kind = tuple[str, str | None]


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def pods_called(names: list[str], **more: object) -> PodSet:
    ejection = Ejection(after_failures=5, eject_s=30, eject_max_s=300)
    addresses = [PodAddress(name, f"http://{name}:9000") for name in names]
    return PodSet(addresses, ejection=ejection, spill_requests=SPILL, spill_factor=FACTOR, **more)  # type: ignore[arg-type]


def say(pods: PodSet, pod: Pod, *, ready: bool = True, has: Sequence[Version] = (), **facts: object) -> None:
    """Have a pod say something of itself."""
    known: dict[str, object] = {"name": pod.name, "boot_id": "1", "backend": "torchserve", **facts}
    models = tuple(
        ModelStatus(id=f"{name}-{version}", name=name, version=version, state="ready") for name, version in has
    )
    pods.observe(pod, PodStatus(ready=ready, models=models, **known), asked_at=pods.now())  # type: ignore[arg-type]


def names(pods: tuple[Pod, ...]) -> list[str]:
    return [pod.name for pod in pods]


@given(pod_names, st.randoms(use_true_random=False), st.sampled_from(VERSIONS))
def test_order_does_not_depend_on_the_listing(called: list[str], random: object, version: tuple[str, str]) -> None:
    """Gateways that list the same pods in any order, and learn of them in any order, place every version alike."""
    shuffled = list(called)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    one, other = pods_called(called), pods_called(shuffled[:1])
    other.order(*version)  # cached before the others are known
    other.replace([PodAddress(name, f"http://{name}:9000") for name in shuffled])
    assert names(one.order(*version)) == names(other.order(*version))


def test_order_does_not_depend_on_the_process() -> None:
    """Another process, with another hash seed, places every version alike."""
    called = [f"pod-{number}" for number in range(9)]
    code = (
        "import json; from gateway.placement.test_placement_properties import *; "
        f"pods = pods_called({called!r}); print(json.dumps([names(pods.order(*each)) for each in VERSIONS]))"
    )
    said = subprocess.check_output(
        [sys.executable, "-c", code], env={"PYTHONHASHSEED": "7", "PYTHONPATH": ":".join(sys.path)}, text=True
    )
    pods = pods_called(called)
    assert json.loads(said) == [names(pods.order(*version)) for version in VERSIONS]


@given(pod_names, st.data())
@settings(max_examples=50)
def test_few_versions_move(called: list[str], data: st.DataObject) -> None:
    """When a pod comes or goes only its own versions get another home: about one of n."""
    pods = pods_called(called)
    before = {version: names(pods.order(*version))[0] for version in VERSIONS}
    leaver = data.draw(st.sampled_from(called))
    pods.replace([PodAddress(name, f"http://{name}:9000") for name in called if name != leaver])
    if len(called) > 1:
        after = {version: names(pods.order(*version))[0] for version in VERSIONS}
        assert {version for version in VERSIONS if before[version] != after[version]} == {
            version for version, home in before.items() if home == leaver
        }
    pods.replace([PodAddress(name, f"http://{name}:9000") for name in [*called, "new-pod"]])
    again = {version: names(pods.order(*version))[0] for version in VERSIONS}
    moved = [version for version in VERSIONS if again[version] != before[version]]
    assert {again[version] for version in moved} <= {"new-pod"}
    share = 1 / (len(called) + 1)
    slack = 5 * (share * (1 - share) / len(VERSIONS)) ** 0.5  # five standard deviations of a fair draw
    assert len(moved) / len(VERSIONS) <= share + slack


@given(st.integers(1, 10), st.integers(1, 5), st.lists(st.integers(0, 9), min_size=1, max_size=200))
def test_load_bound(count: int, replicas: int, requests: list[int]) -> None:
    """However requests come, no pod that is chosen is above its bound while another one is below."""
    pods = pods_called([f"pod-{number}" for number in range(count)])
    for pod in pods.pods:
        say(pods, pod, has=VERSIONS[:10])
    for number in requests:
        spec = PlacementSpec(VERSIONS[number], pods=replicas)
        mean = sum(pod.requests_in_flight for pod in pods.pods) / count
        pod = pods.choose(spec)
        assert pod is not None
        # The next request may find it at the bound at most, or at the mean when every pod is at the version's own.
        assert pod.requests_in_flight <= max(SPILL, FACTOR * mean)
        pod.begin(spec.key)


@given(st.integers(1, 10), st.integers(1, 5))
def test_small_loads_stay_together(count: int, replicas: int) -> None:
    """One request at a time never leaves the version's first pods."""
    pods = pods_called([f"pod-{number}" for number in range(count)])
    for pod in pods.pods:
        say(pods, pod, has=VERSIONS)
    for version in VERSIONS[:20]:
        chosen = pods.choose(PlacementSpec(version, pods=replicas))
        assert chosen in pods.order(*version)[:replicas]


kinds = st.tuples(st.sampled_from(["torchserve", "other"]), st.sampled_from([None, "cpu", "gpu"]))


@given(st.lists(kinds, min_size=1, max_size=10), kinds, st.sampled_from(VERSIONS), st.integers(1, 4), st.data())
def test_pools_are_respected(
    kinds: list[tuple[str, str | None]],
    wanted: tuple[str, str | None],
    version: tuple[str, str],
    replicas: int,
    data: st.DataObject,
) -> None:
    """A pod of another model server or pool is never chosen: not by spill, in panic or for what it has ready."""
    pods = pods_called([f"pod-{number}" for number in range(len(kinds))])
    for pod, (backend, pool) in zip(pods.pods, kinds, strict=True):
        say(pods, pod, ready=data.draw(st.booleans()), has=[version], backend=backend, pool=pool)
        for _ in range(data.draw(st.integers(0, 6))):
            pod.begin(version)
    backend, pool = wanted
    spec = PlacementSpec(version, backend, pool, pods=replicas)
    eligible = [
        pod for pod, kind in zip(pods.pods, kinds, strict=True) if kind[0] == backend and pool in (None, kind[1])
    ]
    tried: set[Pod] = set()
    while (chosen := pods.choose(spec, tried=tried)) is not None:
        assert chosen in eligible
        assert chosen not in tried
        tried.add(chosen)
    assert bool(tried) == bool(eligible)


@given(st.integers(1, 12), st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["down", "lost", "silent", "wait"]))))
def test_never_more_than_half_ejected(count: int, events: list[tuple[int, str]]) -> None:
    """Whatever befalls pods, at most half of them are ejected at a time, or one, and somebody is always asked."""
    clock = Clock()
    pods = pods_called([f"pod-{number}" for number in range(count)], clock=clock)
    for number, event in events:
        pod = pods.pods[number % count]
        for _ in range(5):
            if event == "down":
                pods.eject(pod, "is down")
            elif event == "lost":
                pods.lost(pod, "closed the connection")
            elif event == "silent":
                pods.timed_out(pod, waited_s=2)
            else:
                clock.now += 3
        out = Counter(each.healthy(clock.now) for each in pods.pods)[False]
        assert out <= max(1, count // 2)
        assert pods.choose(PlacementSpec(("intent", "1.0"))) is not None
