"""The memory budget: reserved before, measured after, never overdrawn; the least recently used idle version goes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from marway.deadline import Deadline
from marway.errors import LoadFailed, MarwayError, Unavailable
from marway.serving import ServingSettings
from marway_sidecar.lifecycle import ModelPool
from marway_sidecar.memory.eviction import Candidate, Eviction, choose
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler import StreamJob
from support.fake_server import MIB, FakeServer, limited
from support.pools import ROW, PoolRoom, predict, state
from support.registry import until

THREE = 35 * MIB
"""Room for three workers of 10 MiB, with what their registrations take and a few percent of doubt."""
PINNED = ServingSettings(max_workers=1, pinned=True)


def there(pool: ModelPool) -> list[str]:
    return [status.name for status in pool.statuses() if status.state == "ready"]


async def measured(pool: ModelPool, server: FakeServer) -> None:
    """Wait until every version counts for what its worker takes."""
    await until(lambda: pool.memory()[0] == server.bytes + 40 * 1024 * len(server.held))


async def test_the_least_recently_used_goes(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """A fourth version in a budget for three takes the place of the one that was used longest ago."""
    pool, server = room.pool(metrics, memory_budget_bytes=THREE), FakeServer()
    pool.attach(server)
    versions = room.versions(4)
    for index in (0, 1, 2, 0, 3):
        await predict(pool, versions[index])
    assert there(pool) == ["m0", "m2", "m3"]
    assert server.history[-2:] == ["unload m1", "load m3"]
    assert server.peak_bytes <= THREE
    assert pool.memory()[0] <= THREE
    sample = metrics.registry.get_sample_value
    assert sample("marway_sidecar_model_evictions_total", {"reason": "memory"}) == 1
    await measured(pool, server)
    assert sample("marway_sidecar_memory_bytes", {"tier": "workers"}) == pool.memory()[0]
    assert sample("marway_sidecar_memory_budget_bytes") == THREE


async def test_loads_side_by_side_do_not_overshoot(room: PoolRoom) -> None:
    """Twelve cold versions wanted at once in a budget for three are all served, three at a time."""
    pool, server = room.pool(memory_budget_bytes=THREE), FakeServer(load_s=0.01)
    pool.attach(server)
    versions = room.versions(12)
    answers = await asyncio.gather(*[predict(pool, version) for version in versions])
    assert answers == [version.id for version in versions]
    assert server.loads == 12
    assert server.peak_bytes <= THREE
    assert server.violations == []


async def test_a_version_with_a_request_in_flight_stays(room: PoolRoom) -> None:
    """When all that is loaded is busy, a load waits for the first to become idle; nobody loses an answer."""
    pool, server = room.pool(memory_budget_bytes=THREE), FakeServer(call_s=None)
    pool.attach(server)
    versions = room.versions(4)
    busy = [asyncio.create_task(predict(pool, version)) for version in versions[:3]]
    await until(lambda: sum(held.in_flight for held in server.held.values()) == 3)
    last = asyncio.create_task(predict(pool, versions[3]))
    await until(lambda: state(pool, versions[3]) == "loading")
    assert "load m3" not in server.history
    server.answer.set()
    assert await asyncio.gather(*busy, last) == [version.id for version in versions]
    assert server.violations == []
    assert server.peak_bytes <= THREE


async def test_a_request_leaves_a_wait_for_memory_with_its_deadline(room: PoolRoom) -> None:
    """A request that waits for memory until its deadline gets 503 and when to come back; what is loaded goes on."""
    pool, server = room.pool(memory_budget_bytes=12 * MIB, expected_load_s=0.01), FakeServer(call_s=None)
    pool.attach(server)
    first, second = room.versions(2)
    busy = asyncio.create_task(predict(pool, first))
    await server.calling.wait()
    with pytest.raises(Unavailable, match="waits for memory") as raised:
        await predict(pool, second, timeout_s=0.2)
    assert raised.value.retry_after_s is not None
    server.answer.set()
    assert await busy == first.id


async def test_a_load_that_waits_too_long_for_memory_is_refused(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """After `memory_wait_s` a load is refused, which is not held against the version."""
    settings = {"memory_budget_bytes": 12 * MIB, "memory_wait_s": 1.0}
    pool, server = room.pool(metrics, **settings), FakeServer(call_s=None)
    pool.attach(server)
    first, second = room.versions(2)
    busy = asyncio.create_task(predict(pool, first))
    await server.calling.wait()
    with pytest.raises(Unavailable, match=r"nothing came free within 1 s"):
        await predict(pool, second)
    labels = {"model": "m1", "version": "1.0", "outcome": "refused"}
    assert metrics.registry.get_sample_value("marway_sidecar_model_loads_total", labels) == 1
    server.answer.set()
    await busy
    assert await predict(pool, second) == second.id


async def test_what_is_pinned_stays_and_the_rest_is_refused_at_once(room: PoolRoom) -> None:
    """With the budget full of pinned versions another is refused at once with Retry-After; the pinned ones serve on."""
    pool, server = room.pool(memory_budget_bytes=THREE), FakeServer()
    pool.attach(server)
    *pinned, other = room.versions(4)
    for version in pinned:
        await predict(pool, version, PINNED)
    with pytest.raises(Unavailable, match="versions that stay") as raised:
        await asyncio.wait_for(predict(pool, other), 10)
    assert raised.value.retry_after_s is not None
    assert [await predict(pool, version, PINNED) for version in pinned] == [version.id for version in pinned]
    assert server.loads == 3


async def test_a_version_larger_than_the_budget_is_refused_with_both_numbers(room: PoolRoom) -> None:
    """A version that was measured above the whole budget is not tried again, and the reason gives both sizes."""
    pool, server = room.pool(), FakeServer(sizes={"m0": 50 * MIB}, info=limited((256 + 35) * MIB))
    (version,) = room.versions(1)
    pool.attach(server)  # the reserve is 256 MiB
    await predict(pool, version)
    await measured(pool, server)
    await until(lambda: not there(pool))  # it does not fit, and is idle
    with pytest.raises(LoadFailed, match=r"needs 52\.\d MiB .* is 35 MiB"):
        await predict(pool, version)
    assert server.loads == 1


async def test_a_guess_larger_than_the_budget_is_tried_alone(room: PoolRoom) -> None:
    """Before anything was measured a version gets its chance even where the guess is more than the budget."""
    pool, server = room.pool(memory_budget_bytes=THREE, worker_base_bytes=160 * MIB), FakeServer()
    pool.attach(server)
    versions = room.versions(3)
    answers = await asyncio.gather(*[predict(pool, version) for version in versions])
    assert answers == [version.id for version in versions]
    assert sorted(server.history) == ["load m0", "load m1", "load m2"]  # the guess gave way to a measurement
    assert there(pool) == ["m0", "m1", "m2"]


async def test_a_worker_that_grows_makes_others_go(room: PoolRoom) -> None:
    """When workers take more than they did, idle versions go until the sum is under the budget again."""
    pool, server = room.pool(memory_budget_bytes=THREE), FakeServer()
    pool.attach(server)
    versions = room.versions(3)
    for version in versions:
        await predict(pool, version)
    server.grow(versions[2].id, 24 * MIB)
    await until(lambda: server.bytes <= THREE)
    assert there(pool) == ["m1", "m2"] or there(pool) == ["m2"]
    assert pool.memory()[0] <= THREE


async def test_what_cannot_be_measured_counts_as_reserved(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """A server that does not say what its workers take leaves the reservation standing: unknown is not nothing."""
    pool, server = room.pool(metrics, memory_budget_bytes=THREE), FakeServer(worker_bytes=0)
    pool.attach(server)
    versions = room.versions(4)
    for version in versions:
        await predict(pool, version)
    labels = {"mode": "forked", "reason": ""}
    await until(lambda: metrics.registry.get_sample_value("marway_runtime_workers", labels) == 3)
    assert there(pool) == ["m1", "m2", "m3"]
    assert pool.memory()[0] > 30 * MIB


async def test_the_budget_is_what_the_runtime_leaves(room: PoolRoom) -> None:
    """Without a setting the budget is the runtime's limit, less what it takes itself, less the reserve."""
    pool = room.pool(memory_reserve_bytes=100 * MIB)
    assert pool.memory() == (0, None)
    pool.attach(FakeServer(base_bytes=300 * MIB, info=limited(1000 * MIB)))
    await until(lambda: pool.memory() == (0, 600 * MIB))


async def test_measurements_outlive_the_sidecar(room: PoolRoom) -> None:
    """A new sidecar reserves what the one before measured."""
    first, server = room.pool(), FakeServer(sizes={"m0": 77 * MIB})
    (version,) = room.versions(1)
    first.attach(server)
    await predict(first, version)
    await measured(first, server)
    await first.aclose()
    second, server = room.pool(), FakeServer(load_s=None)
    second.attach(server)
    request = asyncio.create_task(predict(second, version))
    await server.loading.wait()
    assert second.memory()[0] == pytest.approx(77 * MIB, rel=0.1)
    server.go.set()
    await request


async def test_reservations_come_in_their_order(room: PoolRoom) -> None:
    """Loads that wait for memory get it in the order they asked."""
    pool, server = room.pool(memory_budget_bytes=12 * MIB), FakeServer(call_s=None)
    pool.attach(server)
    versions = room.versions(5)
    requests = []
    for version in versions:
        requests.append(asyncio.create_task(predict(pool, version)))
        await until(lambda version=version: state(pool, version) in ("loading", "ready"))
    await server.calling.wait()
    server.answer.set()
    await asyncio.gather(*requests)
    assert [line for line in server.history if line.startswith("load")] == [f"load m{n}" for n in range(5)]


async def test_an_eviction_that_fails_is_not_the_end(room: PoolRoom) -> None:
    """A version that the server would not unload goes on serving, and another goes in its place."""
    pool, server = room.pool(memory_budget_bytes=THREE), FakeServer()
    pool.attach(server)
    versions = room.versions(4)
    for version in versions[:3]:
        await predict(pool, version)
    unload, refused = server.unload, []

    async def refuse_once(model):
        if not refused:
            refused.append(model.name)
            raise MarwayError("not now")
        await unload(model)

    server.unload = refuse_once
    assert await predict(pool, versions[3]) == versions[3].id
    assert refused == ["m0"]
    assert there(pool) == ["m0", "m2", "m3"]
    assert await predict(pool, versions[0]) == versions[0].id


async def test_an_unload_waits_for_what_is_in_flight(room: PoolRoom) -> None:
    """An unload that is asked for lets the call in flight end; a request that comes meanwhile is served after it."""
    pool, server = room.pool(), FakeServer(call_s=None)
    pool.attach(server)
    (version,) = room.versions(1)
    running = asyncio.create_task(predict(pool, version))
    await server.calling.wait()
    unloading = asyncio.create_task(pool.unload(version.id, Deadline.after(30)))
    await until(lambda: state(pool, version) == "draining")
    later = asyncio.create_task(predict(pool, version))
    await until(lambda: pool.status_of(version.id).requests_queued == 1)
    assert server.history == ["load m0"]
    server.answer.set()
    assert await running == version.id
    assert (await unloading).state == "absent"
    assert await later == version.id
    assert server.history == ["load m0", "unload m0", "load m0"]
    assert server.violations == []


async def test_a_caller_that_left_still_counts(room: PoolRoom) -> None:
    """The work of a cancelled caller holds its slot and its version until it ends in the server."""
    pool, server = room.pool(memory_budget_bytes=12 * MIB), FakeServer(call_s=None)
    pool.attach(server)
    first, second = room.versions(2)
    gone = asyncio.create_task(predict(pool, first))
    await server.calling.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert pool.status_of(first.id).requests_in_flight == 1
    waiting = [asyncio.create_task(predict(pool, version)) for version in (first, second)]
    await until(lambda: pool.status_of(first.id).requests_queued == 1)
    assert server.peak_calls == 1
    server.answer.set()
    assert await asyncio.gather(*waiting) == [first.id, second.id]
    assert server.violations == []


async def test_a_version_that_is_held_is_not_evicted(room: PoolRoom) -> None:
    """While somebody holds a version, no other takes its memory; afterwards one may."""
    pool, server = room.pool(memory_budget_bytes=12 * MIB, memory_wait_s=0.2), FakeServer()
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, first)
    with pool.hold(first, ServingSettings(max_workers=1)):
        with pytest.raises(Unavailable):
            await predict(pool, second)
        assert state(pool, first) == "ready"
    assert await predict(pool, second) == second.id
    assert state(pool, first) == "absent"


async def test_a_stream_that_nobody_reads_any_more_holds_its_slot(room: PoolRoom) -> None:
    """A stream is read to its end even when its reader left after the first piece."""
    pool, server = room.pool(), FakeServer()
    pool.attach(server)
    (version,) = room.versions(1)
    serving = ServingSettings(streaming=True, max_workers=1)
    pieces = pool.stream(version, serving, StreamJob(ROW, Deadline.after(30)))
    assert (await anext(pieces)).body == version.id.encode()
    server.call_s = None
    await pieces.aclose()
    assert pool.in_flight == 1
    server.answer.set()
    await until(lambda: pool.in_flight == 0)


def test_no_more_go_than_must() -> None:
    """The oldest go first, and a more recently used one is spared where the older ones suffice without it."""
    small, large, recent = Candidate("small", 1, 1.0), Candidate("large", 10, 2.0), Candidate("recent", 10, 3.0)
    assert choose([recent, large, small], 1) == [small]
    assert choose([recent, large, small], 11) == [small, large]
    assert choose([recent, large, small], 10) == [large]
    assert choose([recent, large, small], 22) == []


def test_what_is_parked_goes_first() -> None:
    """Weights that are only kept go before a version with workers, however lately they were of use."""
    kept = Candidate("kept", 10, 9.0, weights_bytes=9, parked=True)
    assert choose([Candidate("old", 10, 1.0), kept], 5) == [kept]


class Asked:
    """Versions that are asked to go, and nothing else: `Tenants`."""

    def __init__(self, *candidates: Candidate) -> None:
        self._candidates = candidates
        self.asked: list[str] = []

    def evictable(self) -> Sequence[Candidate]:
        return self._candidates

    def spare_workers(self) -> Sequence[Candidate]:
        return ()

    def permanent(self) -> set[str]:
        return set()

    def evict(self, key: str) -> None:
        self.asked.append(f"evict {key}")

    def park(self, key: str) -> None:
        self.asked.append(f"park {key}")

    def shrink(self, key: str) -> None:
        raise AssertionError

    def measure(self) -> None:
        raise AssertionError


@pytest.mark.parametrize(
    ("short", "asked"),
    [(30, ["park b"]), (100, ["evict a"]), (130, ["evict a", "park b"]), (200, ["evict a", "evict b"])],
)
def test_weights_stay_where_the_rest_frees_enough(short: int, asked: list[str]) -> None:
    """Of versions that go, those keep their weights whose workers alone free what is needed."""
    plain, shares = Candidate("a", 100, 1.0), Candidate("b", 100, 2.0, weights_bytes=60)
    tenants = Asked(shares) if short == 30 else Asked(plain, shares)
    eviction = Eviction(tenants, unused_s=60.0)
    assert eviction.make_room(short, evict="idle", exclude=None)
    assert tenants.asked == asked
    assert sum(eviction.leaving.values()) + sum(eviction.shrinking.values()) >= short


async def test_further_workers_take_what_is_theirs_alone(room: PoolRoom) -> None:
    """Where workers share 20 MiB of weights, three of 2 MiB fit into a budget of 30 MiB, and the pod says so."""
    pool, server = room.pool(memory_budget_bytes=30 * MIB, scale_up_wait_s=0.01), FakeServer(worker_bytes=2 * MIB)
    server.shared["m0"] = 20 * MIB
    pool.attach(server)
    (version,) = room.versions(1)
    three = ServingSettings(max_workers=3, max_batch_rows=1)
    await predict(pool, version, three)
    await until(lambda: pool.statuses()[0].weights_bytes == 20 * MIB)
    server.call_s = None
    requests = [asyncio.create_task(predict(pool, version, three)) for _ in range(9)]
    await until(lambda: server.peak_calls == 3)
    server.answer.set()
    await asyncio.gather(*requests)
    await measured(pool, server)
    assert pool.memory()[0] == 26 * MIB + 40 * 1024


async def test_a_parked_version_comes_back_and_goes_first(room: PoolRoom, metrics: SidecarMetrics) -> None:
    """Without workers its weights count and it is not loaded again; when memory is needed they go before others."""
    pool = room.pool(metrics, memory_budget_bytes=THREE, scale_down_s=0.1, scale_to_zero_s=0.2)
    server = FakeServer(worker_bytes=2 * MIB, sizes={f"m{number}": 10 * MIB for number in (1, 2)})
    server.shared["m0"] = 8 * MIB
    pool.attach(server)
    parked, *others = room.versions(3)
    none = ServingSettings(min_workers=0, max_workers=2)
    tier = {"tier": "parked"}

    def kept() -> bool:
        return pool.statuses()[0].parked and pool.memory()[0] == server.bytes + 40 * 1024 * len(server.held)

    await predict(pool, parked, none)
    await until(kept, within_s=30)
    assert metrics.registry.get_sample_value("marway_sidecar_memory_bytes", tier) == 8 * MIB + 40 * 1024
    assert await predict(pool, parked, none, timeout_s=0.5) == parked.id
    assert server.history == ["load m0", "scale 0 m0", "scale 1 m0"]
    await predict(pool, others[0])
    await until(kept, within_s=30)
    await predict(pool, others[1], ServingSettings(max_workers=1, min_workers=2))
    assert there(pool) == ["m1", "m2"]
    assert server.history[-2:] == ["unload m0", "load m2"]
    assert server.violations == []


async def test_who_goes_for_memory_is_parked_where_that_is_enough(room: PoolRoom) -> None:
    """A version whose workers alone free what another needs keeps its weights, and answers without a load."""
    pool, server = room.pool(memory_budget_bytes=THREE), FakeServer(worker_bytes=20 * MIB)
    server.shared["m0"] = 5 * MIB
    pool.attach(server)
    first, second = room.versions(2)
    await predict(pool, first)
    await measured(pool, server)
    await predict(pool, second)
    assert [(each.state, each.parked) for each in pool.statuses()] == [("ready", True), ("ready", False)]
    await measured(pool, server)
    assert await predict(pool, first) == first.id
    assert server.loads == 2
