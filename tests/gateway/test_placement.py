from collections import Counter

import pytest

from marway.wire.pods import PodStatus
from marway_gateway.placement import Demand, Pod, PodSet, score
from marway_gateway.placement.ejection import Ejection
from marway_gateway.settings import PodAddress


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def pods_called(*names: str, clock: Clock | None = None, **changes: object) -> PodSet:
    known = {"after_failures": 5, "eject_s": 30.0, "eject_max_s": 300.0, **changes}
    addresses = [PodAddress(name, f"http://{name}:9000") for name in names]
    return PodSet(addresses, ejection=Ejection(**known), clock=clock or Clock())  # type: ignore[arg-type]


def status(*, ready: bool = True, draining: bool = False) -> PodStatus:
    return PodStatus(name="x", boot_id="1", backend="torchserve", ready=ready, draining=draining)


def names(pods: tuple[Pod, ...]) -> list[str]:
    return [pod.name for pod in pods]


INTENT = Demand(("intent", "1.0"))
VERSIONS = [(f"model-{number}", f"{number % 3}.0") for number in range(600)]


def test_score_is_the_same_everywhere() -> None:
    """A score depends on nothing but the names, so it is the same in every process and on every machine."""
    assert score("a", "intent", "1.0") == 8353383147312136514


def test_order_is_the_same_on_every_gateway() -> None:
    """Gateways that were given the same pods in another order place every version alike."""
    one, other = pods_called("a", "b", "c", "d"), pods_called("d", "b", "a", "c")
    assert all(names(one.order(*version)) == names(other.order(*version)) for version in VERSIONS)


def test_versions_spread_evenly() -> None:
    """Each of four pods is home to about a quarter of the versions."""
    pods = pods_called("a", "b", "c", "d")
    homes = Counter(pods.order(*version)[0].name for version in VERSIONS)
    assert all(100 <= homes[name] <= 200 for name in "abcd")


def test_only_its_own_versions_move_when_a_pod_goes() -> None:
    """Without one pod, the order of all others stays as it was for every version."""
    four, three = pods_called("a", "b", "c", "d"), pods_called("a", "b", "d")
    for version in VERSIONS:
        assert names(three.order(*version)) == [name for name in names(four.order(*version)) if name != "c"]


def test_choose_follows_the_order() -> None:
    """Pods are asked in the version's order, each once."""
    pods = pods_called("a", "b", "c")
    order = pods.order("intent", "1.0")
    assert pods.choose(INTENT, tried=()) is order[0]
    assert pods.choose(INTENT, tried={order[0]}) is order[1]
    assert pods.choose(INTENT, tried=set(order)) is None


@pytest.mark.parametrize("trouble", ["unreachable", "ejected", "unready", "draining"])
def test_unhealthy_pods_are_passed_over(trouble: str) -> None:
    """A pod that is unreachable, ejected, unready or draining is not asked while another is healthy."""
    pods = pods_called("a", "b")
    home, other = pods.order("intent", "1.0")
    if trouble == "unreachable":
        pods.unreachable(home, "refused the connection")
    elif trouble == "ejected":
        pods.eject(home, "is down")
    else:
        pods.observe(home, status(ready=trouble != "unready", draining=trouble == "draining"), asked_at=0)
    assert pods.choose(INTENT, tried=()) is other
    assert pods.choose(INTENT, tried={other}) is None


def test_panic() -> None:
    """When no pod is healthy they are tried anyway, but never one that drains."""
    pods = pods_called("a", "b", "c")
    order = pods.order("intent", "1.0")
    pods.observe(order[0], status(draining=True), asked_at=0)
    pods.eject(order[1], "is down")
    pods.unreachable(order[2], "refused the connection")
    assert pods.choose(INTENT, tried=()) is order[1]
    assert pods.choose(INTENT, tried={order[1]}) is order[2]
    assert pods.choose(INTENT, tried={order[1], order[2]}) is None


def test_ejections_grow_and_end(clock: Clock) -> None:
    """The n-th ejection in a row lasts n times as long, up to the cap, and counting starts over after a calm time."""
    ejected: list[None] = []
    pods = pods_called("a", clock=clock, eject_s=30.0, eject_max_s=70.0, on_ejection=lambda: ejected.append(None))
    pod = pods.pods[0]
    for lasts in (30, 60, 70, 70):
        pods.eject(pod, "is down")
        clock.now += lasts - 1
        assert pod.trouble(clock.now) == "is ejected for 1 s more: is down"
        clock.now += 1
        assert pod.trouble(clock.now) is None
    assert len(ejected) == 4
    clock.now += 71
    pods.eject(pod, "is down")
    assert pod.ejections == 1


def test_ejecting_twice_is_ejecting_once(clock: Clock) -> None:
    """A pod that is out already is not ejected again by requests that were under way."""
    pods = pods_called("a", clock=clock)
    pods.eject(pods.pods[0], "is down")
    pods.eject(pods.pods[0], "is down")
    assert pods.pods[0].ejections == 1


def test_health_check_ends_an_ejection(clock: Clock) -> None:
    """A pod that says it is ready comes back at once, unless it was asked before it was ejected."""
    pods = pods_called("a", clock=clock)
    pod = pods.pods[0]
    pods.eject(pod, "is down")
    pods.observe(pod, status(), asked_at=clock.now - 0.1)
    assert pod.trouble(clock.now) is not None
    pods.observe(pod, status(ready=False), asked_at=clock.now)
    pods.observe(pod, status(), asked_at=clock.now)
    assert pod.trouble(clock.now) is None


def test_lost_connections_eject(clock: Clock) -> None:
    """Five lost connections in a row eject a pod; an answer in between starts the count anew."""
    pods = pods_called("a", clock=clock)
    pod = pods.pods[0]
    for _ in range(4):
        pods.lost(pod, "closed the connection")
    pods.succeeded(pod)
    for _ in range(4):
        pods.lost(pod, "closed the connection")
    assert pod.trouble(clock.now) is None
    pods.lost(pod, "closed the connection")
    assert "is ejected" in (pod.trouble(clock.now) or "")


def test_one_late_answer_is_forgiven(clock: Clock) -> None:
    """A pod that once answers a health check late stays in; the second time in a row takes it out."""
    pods = pods_called("a", clock=clock)
    pod = pods.pods[0]
    for _ in range(3):
        pods.late(pod, "did not answer")
        assert pod.trouble(clock.now) is None
        pods.observe(pod, status(), asked_at=clock.now)
    pods.late(pod, "did not answer")
    pods.late(pod, "did not answer")
    assert pod.trouble(clock.now) == "did not answer"


def test_ready_needs_a_word_of_the_pod() -> None:
    """A pod that has not answered yet may be tried, but does not make the gateway ready."""
    pods = pods_called("a")
    assert pods.choose(INTENT, tried=()) is pods.pods[0]
    assert not pods.ready()
    pods.observe(pods.pods[0], status(), asked_at=0)
    assert pods.ready()


def test_troubles_in_words(clock: Clock) -> None:
    """What is wrong is said pod by pod."""
    assert "no pods are configured" in pods_called().troubles()
    pods = pods_called("a", "b", "c", clock=clock)
    pods.eject(pods.pods[0], "its model server is down")
    pods.observe(pods.pods[1], status(draining=True), asked_at=0)
    assert pods.troubles() == (
        "pod a is ejected for 30 s more: its model server is down; pod b is draining; pod c has not answered yet"
    )
