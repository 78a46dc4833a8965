"""Background duties are done by one gateway process among all, for as long as it holds the lease."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from marway.errors import RegistryUnavailable
from marway.objects import DirectoryStore
from marway.registry import Registry, open_registry
from marway.settings import load_settings
from marway_gateway.duties import Duties, DutyMetrics, Job, Lease
from marway_gateway.gateway import open_gateway
from marway_gateway.settings import GatewaySettings


class Counted:
    """Jobs that count how often each was begun, and how many run."""

    def __init__(self) -> None:
        self.begun = 0
        self.running = 0
        self.error: Exception | None = None

    async def quick(self) -> None:
        self.begun += 1
        if self.error is not None:
            raise self.error

    async def endless(self) -> None:
        self.begun += 1
        self.running += 1
        try:
            await asyncio.sleep(60)
        finally:
            self.running -= 1


def duties(
    lease: Lease, run: Callable[[], Awaitable[None]], *, metrics: CollectorRegistry | None = None, renew_s: float = 0.01
) -> Duties:
    return Duties(
        lease, [Job("counting", 0.01, run)], metrics=DutyMetrics(metrics or CollectorRegistry()), renew_s=renew_s
    )


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.005)


async def test_one_does_them_and_the_next_takes_over(tmp_path: Path) -> None:
    """Of two gateways one does the job; when it ends its job is cancelled, and the other does it soon after."""
    first, second = Counted(), Counted()
    one = duties(Lease(DirectoryStore(tmp_path)), first.endless)
    other = duties(Lease(DirectoryStore(tmp_path)), second.endless)
    one.start()
    await until(lambda: first.running == 1)
    other.start()
    await asyncio.sleep(0.05)
    assert (second.begun, one.holding, other.holding) == (0, True, False)
    await one.aclose()
    assert first.running == 0
    await until(lambda: second.running == 1)
    await other.aclose()
    await other.aclose()


async def test_a_holder_that_cannot_renew_it_stops_before_it_runs_out(tmp_path: Path) -> None:
    """A store that hangs ends the jobs once the lease may be another's, though the store has not answered."""
    hangs = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Hanging(DirectoryStore):
        stuck = False

        def replace(self, key: str, data: bytes, *, etag: str) -> str:
            if self.stuck:
                asyncio.run_coroutine_threadsafe(hangs.wait(), loop).result()
            return super().replace(key, data, etag=etag)

    store = Hanging(tmp_path)
    counted = Counted()
    one = duties(Lease(store, lasts_s=0.5), counted.endless)
    one.start()
    await until(lambda: counted.running == 1)
    store.stuck = True
    await until(lambda: counted.running == 0)
    store.stuck = False
    hangs.set()
    await until(lambda: counted.running == 1)
    await one.aclose()


async def test_a_job_that_fails_is_told_once_and_done_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A failure is logged once a trouble, counted each time, and the job is done again."""
    counted, metrics = Counted(), CollectorRegistry()
    counted.error = RegistryUnavailable("the store is away")
    one = duties(Lease(DirectoryStore(tmp_path)), counted.quick, metrics=metrics)
    one.start()
    await until(lambda: counted.begun > 3)
    counted.error = None
    before = counted.begun
    await until(lambda: counted.begun > before + 1)
    await one.aclose()
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == [
        "counting: the store is away"
    ]
    runs = {
        outcome: metrics.get_sample_value("marway_gateway_duty_runs_total", {"duty": "counting", "outcome": outcome})
        for outcome in ("done", "failed")
    }
    assert runs["failed"] == before
    assert (runs["done"] or 0) >= 2
    assert (
        metrics.get_sample_value("marway_gateway_duty_last_success_timestamp_seconds", {"duty": "counting"}) or 0
    ) > 1e9
    assert metrics.get_sample_value("marway_gateway_duties_held") == 0.0


async def test_nothing_is_written_where_there_is_no_registry(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An empty directory, where a volume should be, is not given a lease; the reason is logged once."""
    registry = open_registry(str(tmp_path / "away"))
    counted = Counted()
    one = Duties(
        Lease(registry.store),
        [Job("counting", 1, counted.quick)],
        metrics=DutyMetrics(CollectorRegistry()),
        check=registry.check_there,
        renew_s=0.01,
    )
    one.start()
    await until(lambda: bool(caplog.records))
    await asyncio.sleep(0.05)
    await one.aclose()
    assert counted.begun == 0
    assert not (tmp_path / "away").exists()
    assert len([record for record in caplog.records if "there is no registry" in record.message]) == 1


async def test_a_gateway_asks_for_the_lease_unless_told_not_to(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that opens takes the lease, gives it back when it closes, and leaves it where `duties` is off."""
    monkeypatch.setattr("marway_gateway.duties.opening._FIRST_S", 0.0)
    async with open_gateway(
        load_settings(GatewaySettings, duties=False, access_log=False), registry=registry
    ) as gateway:
        assert gateway.telemetry.metrics.registry.get_sample_value("marway_gateway_duties_held") is None
    async with open_gateway(load_settings(GatewaySettings, access_log=False), registry=registry) as gateway:
        metrics = gateway.telemetry.metrics.registry
        await until(lambda: metrics.get_sample_value("marway_gateway_duties_held") == 1.0)
    assert Lease(registry.store).renew()
