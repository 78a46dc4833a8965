from collections import Counter
from typing import Any

import pytest

from marway.serving import ServingSettings
from marway.wire.pods import ModelStatus, PodStatus
from marway_gateway.placement import Ejection, PlacementSpec, Pod, PodSet, placement_spec, score
from marway_gateway.settings import PodAddress
from support.registry import record_of


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


INTENT = PlacementSpec(("intent", "1.0"))
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
    order[1].begin(INTENT.key)
    assert pods.choose(INTENT, tried=()) is order[2], "spread: the one with the fewest requests"
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
    pod.succeeded()
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


def has(pods: PodSet, pod: Pod, *versions: tuple[str, str], **facts: Any) -> None:
    """Have a pod say that it is well and has these versions ready."""
    models = tuple(ModelStatus(id=f"{name}-{it}", name=name, version=it, state="ready") for name, it in versions)
    pods.observe(pod, status().model_copy(update={"models": models, **facts}), asked_at=pods.now())


def test_backend_and_pool_choose_pods() -> None:
    """Only pods of the version's model server and pool are in its order, as soon as they say what they are."""
    pods = pods_called("a", "b", "c")
    a, b, c = pods.pods
    assert pods.order("intent", "1.0", backend="torchserve", pool="gpu") == ()
    has(pods, a, pool="gpu")
    has(pods, b, pool="cpu")
    has(pods, c, pool="gpu", backend="other")
    assert pods.order("intent", "1.0", backend="torchserve", pool="gpu") == (a,)
    assert set(pods.order("intent", "1.0", backend="torchserve")) == {a, b}
    assert pods.choose(PlacementSpec(INTENT.key, "torchserve", "none")) is None
    assert pods.troubles(PlacementSpec(INTENT.key, "torchserve", "none")) == (
        "none of the 3 pods runs torchserve of the pool 'none'"
    )


def test_a_version_goes_to_pods_that_serve_its_backend() -> None:
    """A pod serves what it says, its own backend at least; a record that names none is torchserve's."""
    pods = pods_called("a", "b", "c")
    a, b, c = pods.pods
    has(pods, a)  # an older sidecar says no more than its backend
    has(pods, b, backend="native", serves=("native", "torchserve"))
    has(pods, c, backend="open-inference", serves=("open-inference",))
    for backend, expected in {None: {a, b}, "native": {b}, "open-inference": {c}, "mms": set()}.items():
        record = record_of(b"x", **({"backend": backend} if backend is not None else {}))
        assert set(pods.order("intent", "1.0", backend=record.backend)) == expected
    has(pods, b, backend="native", serves=("native",))
    assert pods.order("intent", "1.0", backend="torchserve") == (a,)


def test_an_engine_chooses_among_pods_that_serve_a_backend() -> None:
    """A version that asks for an engine goes to its pods alone, and not to one that has not said yet what it is."""
    pods = pods_called("a", "b", "c")
    a, b, _ = pods.pods
    has(pods, a)
    has(pods, b, backend="native", serves=("native", "torchserve"))
    for engine, expected in {"native": (b,), "torchserve": (a,), "mms": ()}.items():
        spec = placement_spec(record_of(b"x"), ServingSettings(engine=engine), {})
        assert pods.order_of(spec) == expected
    assert pods.choose(spec) is None
    assert pods.troubles(spec) == (
        "none of the 3 pods runs mms, with archives for torchserve, which the version's serving setting `engine` asks "
        "for"
    )


@pytest.mark.parametrize(
    ("serving", "record", "algorithm", "pool"),
    [
        ("s", "r", "forest", "s"),
        (None, "r", "forest", "r"),
        (None, None, "forest", "f"),
        (None, None, "net", "any"),
        (None, None, None, "any"),
    ],
)
def test_a_version_names_its_pool(serving: str | None, record: str | None, algorithm: str | None, pool: str) -> None:
    """Serving settings name the pool, else the record, else the algorithm's pool of the gateway's settings."""
    published = record_of(b"x", pool=record, algorithm=algorithm)
    settings = ServingSettings(pool=serving, pods=3)
    assert placement_spec(published, settings, {"forest": "f", "*": "any"}) == PlacementSpec(
        INTENT.key, "torchserve", pool, pods=3
    )
    assert placement_spec(published, settings, {}).pool == (serving or record)


def test_a_version_uses_as_many_pods_as_it_says() -> None:
    """Requests go to the first R pods that have the version ready, to the one with the fewest in flight."""
    pods = pods_called("a", "b", "c")
    first, second, _ = pods.order("intent", "1.0")
    for pod in pods.pods:
        has(pods, pod, INTENT.key)
    spec = PlacementSpec(INTENT.key, pods=2)
    chosen = []
    for _ in range(4):
        pod = pods.choose(spec)
        assert pod is not None
        pod.begin(INTENT.key)
        chosen.append(pod)
    assert chosen == [first, second, first, second]
    first.end(INTENT.key)
    assert pods.choose(spec) is first


def test_a_sequence_has_one_pod() -> None:
    """Requests of one sequence go to one of the version's R pods however busy it is, and elsewhere when it is lost."""
    addresses = [PodAddress(name, f"http://{name}:9000") for name in "abc"]
    ejection = Ejection(after_failures=5, eject_s=30, eject_max_s=300)
    pods = PodSet(addresses, ejection=ejection, max_requests=30, clock=Clock())
    first, second, _ = pods.order("intent", "1.0")
    for pod in pods.pods:
        has(pods, pod, INTENT.key)
    homes = {}
    for number in range(40):
        spec = PlacementSpec(INTENT.key, pods=2, sequence=str(number))
        homes[number] = pods.choose(spec)
        assert pods.choose(spec) is homes[number]
    assert set(homes.values()) == {first, second}
    mine = PlacementSpec(INTENT.key, pods=2, sequence="7")
    home = homes[7]
    assert home is not None
    for _ in range(29):
        home.begin(INTENT.key)
        assert pods.choose(mine) is home
    home.begin(INTENT.key)
    assert pods.choose(mine) is None
    assert pods.saturated(mine)
    assert pods.choose(mine, tried=(home,)) not in (None, home)


def test_load_spills_to_pods_that_are_ready() -> None:
    """A home that is full is helped by a pod that has the version ready, and the next in order is asked to load it."""
    missing: list[tuple[Pod, PlacementSpec]] = []
    pods = pods_called("a", "b", "c")
    pods.on_missing = lambda pod, spec: missing.append((pod, spec))
    home, following, last = pods.order("intent", "1.0")
    has(pods, home, INTENT.key)
    has(pods, following)
    has(pods, last)
    for _ in range(16):
        assert pods.choose(INTENT) is home
        home.begin(INTENT.key)
    assert missing == []
    assert pods.choose(INTENT) is home, "no other has it ready"
    assert missing == [(following, INTENT)]
    has(pods, following, INTENT.key)
    assert pods.choose(INTENT) is following
    home.end(INTENT.key)
    assert pods.choose(INTENT) is home


def test_a_new_home_loads_before_traffic_moves() -> None:
    """While a version's home does not have it ready, requests stay with the pod that has, and the home is asked."""
    missing: list[tuple[Pod, PlacementSpec]] = []
    pods = pods_called("a", "b", "c")
    pods.on_missing = lambda pod, spec: missing.append((pod, spec))
    home, _, last = pods.order("intent", "1.0")
    assert pods.choose(INTENT) is home, "nobody has it: the home loads it"
    assert missing == []
    has(pods, last, INTENT.key)
    assert pods.choose(INTENT) is last
    assert missing == [(home, INTENT)]
    has(pods, home, INTENT.key)
    assert pods.choose(INTENT) is home
    pods.unreachable(home, "refused the connection")
    assert pods.choose(INTENT) is last


def test_pods_come_and_go() -> None:
    """Pods can be replaced while they work: those that stay keep their state, those that go are out of every order."""
    pods = pods_called("a", "b")
    changes: list[None] = []
    pods.on_change = lambda: changes.append(None)
    a, b = pods.pods
    has(pods, a, INTENT.key)
    has(pods, b, INTENT.key)
    b.begin(INTENT.key)
    changes.clear()
    pods.replace([PodAddress("a", "http://a:9000"), PodAddress("c", "http://c:9000")])
    assert [pod.name for pod in pods.pods] == ["a", "c"]
    assert pods.pods[0] is a
    assert b.removed
    assert changes == [None]
    assert set(pods.order("intent", "1.0")) == set(pods.pods)
    b.end(INTENT.key)
    pods.observe(b, status(), asked_at=0)
    assert pods.choose(INTENT) is a
    pods.replace([PodAddress("a", "http://a:9000"), PodAddress("c", "http://c:9000")])
    assert changes == [None], "the same pods are no change"


def test_full_pods_are_not_chosen() -> None:
    """A pod with as many requests as it may have gets none, and is told from one that is not well."""
    pods = PodSet(
        [PodAddress(name, f"http://{name}") for name in "ab"],
        ejection=Ejection(after_failures=5, eject_s=30, eject_max_s=300),
        max_requests=1,
    )
    for _ in pods.pods:
        pod = pods.choose(INTENT)
        assert pod is not None
        pod.begin(INTENT.key)
    assert pods.choose(INTENT) is None
    assert pods.saturated(INTENT)
    assert not pods.saturated(INTENT, tried=set(pods.pods))


def test_silence_ejects(clock: Clock) -> None:
    """Five requests in a row left without an answer eject a pod, and health checks do not take that back."""
    pods = pods_called("a", "b", clock=clock)
    pod = pods.pods[0]
    for _ in range(20):
        pods.timed_out(pod, waited_s=0.5)
    assert pod.healthy(clock.now), "who gave it no time learns nothing about it"
    for _ in range(4):
        pods.timed_out(pod, waited_s=2)
    pod.succeeded()
    for _ in range(5):
        assert pod.healthy(clock.now)
        pods.timed_out(pod, waited_s=2)
    pods.observe(pod, status(), asked_at=clock.now)
    assert pod.trouble(clock.now) == "is ejected for 30 s more: left 5 requests in a row without an answer"
    clock.now += 30
    assert pod.healthy(clock.now)


def test_no_more_than_half_are_ejected(clock: Clock) -> None:
    """With half of the pods out no further one is ejected, until one is back."""
    pods = pods_called("a", "b", "c", "d", clock=clock)
    for pod in pods.pods:
        pods.eject(pod, "is down")
    assert [pod.healthy(clock.now) for pod in pods.pods] == [False, False, True, True]
    clock.now += 31
    pods.eject(pods.pods[3], "is down")
    assert [pod.healthy(clock.now) for pod in pods.pods] == [True, True, True, False]


def has_intent(*, draining: bool = False) -> PodStatus:
    loaded = ModelStatus(id="1", name="intent", version="1.0", state="ready")
    return status(ready=not draining, draining=draining).model_copy(update={"models": (loaded,)})


def test_a_leaving_pod_gets_what_nobody_else_has() -> None:
    """A pod that is being terminated is asked only for what no other has ready, whatever it says itself."""
    pods = pods_called("a", "b", "c")
    addresses = [PodAddress(pod.name, pod.url) for pod in pods.pods]
    home, following, last = pods.order("intent", "1.0")
    for pod in pods.pods:
        pods.observe(pod, has_intent() if pod is home else status(), asked_at=1000.0)
    changes: list[int] = []
    missing: list[str] = []
    pods.on_change = lambda: changes.append(1)
    pods.on_missing = lambda pod, spec: missing.append(pod.name)
    pods.replace(addresses, leaving={home.name})
    pods.replace(addresses, leaving={home.name})
    assert changes == [1]
    pods.observe(home, has_intent(), asked_at=1001.0)
    assert not home.healthy(1000.0)
    assert home.trouble(1000.0) == "is being terminated"
    assert (pods.choose(INTENT), missing) == (home, [following.name])
    assert pods.choose(INTENT, tried={home}) is following
    pods.observe(following, has_intent(), asked_at=1002.0)
    assert pods.choose(INTENT) is following
    assert pods.choose(INTENT, tried={following}) is home, "and again when that one failed"
    pods.unreachable(home, "refused the connection")
    assert pods.choose(INTENT, tried={following}) is last
    pods.replace(addresses)
    assert changes


def test_when_every_pod_leaves_the_version_is_still_answered() -> None:
    """With no pod that stays, one that has the version ready answers; one that has it not is not asked."""
    pods = pods_called("a", "b")
    home, other = pods.order("intent", "1.0")
    pods.observe(home, status(draining=True), asked_at=1000.0)
    pods.observe(other, has_intent(draining=True), asked_at=1000.0)
    assert pods.choose(INTENT) is other
    assert pods.choose(INTENT, tried={other}) is None
    assert not pods.ready()


def test_only_pods_that_have_it_ready(clock: Clock) -> None:
    """A candidate's requests go where it is ready, even to a pod that drains, or nowhere; who lacks it is named."""
    pods = pods_called("a", "b", "c", clock=clock)
    missing: list[str] = []
    pods.on_missing = lambda pod, spec: missing.append(pod.name)
    spec = INTENT._replace(ready_only=True)
    first, second, third = pods.order_of(spec)
    for pod in (first, second, third):
        pods.observe(pod, status(), asked_at=clock())
    assert not pods.has_ready(spec)
    assert pods.choose(spec) is None
    assert not pods.saturated(spec)
    assert missing == [first.name] * 2
    pods.observe(third, holding(), asked_at=clock())
    assert pods.has_ready(spec)
    assert pods.choose(spec) is third
    assert pods.choose(spec, tried=[third]) is None
    pods.observe(third, holding(draining=True), asked_at=clock())
    assert pods.has_ready(spec)
    assert pods.choose(spec) is third
    pods.unreachable(third, "refused the connection")
    assert not pods.has_ready(spec)
    assert pods.choose(spec) is None
    for pod in (first, second):
        pods.unreachable(pod, "refused the connection")
    assert pods.choose(spec) is None
    assert pods.choose(INTENT) is not None, "as all others are in a panic"


def holding(*, draining: bool = False) -> PodStatus:
    """Return what a pod says that has INTENT ready."""
    model = ModelStatus(id="run-1", name=INTENT.key[0], version=INTENT.key[1], state="ready")
    return status(draining=draining).model_copy(update={"models": (model,)})
