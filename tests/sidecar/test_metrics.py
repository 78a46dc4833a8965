"""What a sidecar counts and shows of its versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from marway.deadline import Deadline
from marway.records import VersionRecord
from marway.refs import server_name
from marway.registry import Registry
from marway.serving import ServingSettings
from marway.wire.envelope import Answer, Part, Row
from marway.wire.runtime import DeathReason, WorkerDeaths
from marway_sidecar.backends.base import ServedModel, ServerStatus
from marway_sidecar.metrics import SidecarMetrics
from marway_sidecar.scheduler import Job
from support.fake_server import FakeServer
from support.pod import FakeServer as PodServer
from support.pod import serving
from support.pools import PoolRoom, predict
from support.registry import publish, until

SAID = {"X-Marway-Nonfinite": "1"}


class NanServer(FakeServer):
    """A model server whose handler reports rows of the value `nan`."""

    async def predict(self, model: ServedModel, rows: object, deadline: Deadline) -> list[Answer]:
        answers = await super().predict(model, rows, deadline)  # type: ignore[arg-type]
        return [
            Answer(500, answer.body, "json", headers=SAID) if answer.headers["value"] == "nan" else answer
            for answer in answers
        ]


def sample(metrics: SidecarMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"marway_sidecar_{name}", labels)


@pytest.mark.parametrize("rows", [1, 4])
async def test_answers_that_are_not_finite_are_counted_by_row(
    room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics, rows: int
) -> None:
    """Each row whose handler set the header counts once, alone or in a batch."""
    pool = room.pool(metrics)
    pool.attach(NanServer())
    settings = ServingSettings(max_workers=1, max_batch_rows=rows)
    values = ["1", "nan", "2", "nan"]
    sent = [Row(value, [Part("data", value.encode())]) for value in values]
    for first in range(0, 4, rows):
        answers = await pool.predict(record, settings, Job(sent[first : first + rows], Deadline.after(30)))
        assert [answer.status for answer in answers] == [500 if v == "nan" else 200 for v in values[first:][:rows]]
    assert sample(metrics, "nonfinite_answers_total", model="some", version="1.0") == 2
    assert sample(metrics, "batch_rows_count") == 4 / rows


async def test_a_version_that_is_forgotten_leaves_no_series(
    room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics
) -> None:
    """Without a report there is no series, and what was counted goes with the version."""
    pool = room.pool(metrics, forget_s=0.05)
    pool.attach(NanServer())
    await predict(pool, record)
    assert sample(metrics, "nonfinite_answers_total", model="some", version="1.0") is None
    await predict(pool, record, row=Row("r", [Part("data", b"nan")]))
    assert sample(metrics, "nonfinite_answers_total", model="some", version="1.0") == 1
    await pool.unload(record.id, Deadline.after(30))
    await until(lambda: pool.status_of(record.id) is None)
    assert sample(metrics, "nonfinite_answers_total", model="some", version="1.0") is None


async def test_a_stream_that_is_not_finite_counts_once(registry: Registry, tmp_path: Path) -> None:
    """A stream counts once however many of its pieces say it, also when only its last ones do."""

    async def streams(model: ServedModel, row: Row) -> AsyncIterator[Answer]:
        yield Answer(200, b"one ", "text")
        yield Answer(200, b"two ", "text", headers=SAID)
        yield Answer(200, b"three", "text", headers=SAID)

    publish(registry, tmp_path, "words", "1.0", serving=ServingSettings(streaming=True))
    async with serving(registry, tmp_path, server=PodServer(stream_with=streams)) as pod:
        for count in (1, 2):
            assert (await pod.client.post("/predict/words", content=b"x")).text == "one two three"
            labels = {"model": "words", "version": "1.0"}
            await until(lambda: sample(pod.sidecar.metrics, "nonfinite_answers_total", **labels) == count)  # noqa: B023


async def test_when_a_version_was_used_last(room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics) -> None:
    """A loaded version shows 0 until a request comes, then when that was; one that is not loaded shows nothing."""
    pool = room.pool(metrics)
    pool.attach(FakeServer())
    await pool.load(record, ServingSettings(max_workers=1), Deadline.after(30))

    def used() -> float | None:
        return sample(metrics, "model_last_used_timestamp_seconds", model="some", version="1.0")

    assert used() == 0
    await predict(pool, record)
    status = pool.status_of(record.id)
    assert status is not None
    assert status.last_used_at is not None
    assert used() == status.last_used_at.timestamp()
    assert [used() for _ in range(100)] == [used()] * 100  # it does not move while nobody asks
    await pool.unload(record.id, Deadline.after(30))
    assert used() is None


async def test_model_servers_that_come_and_go(registry: Registry, tmp_path: Path) -> None:
    """Whether one is up is shown, and each one that is found is counted; without one the pod is not ready."""
    async with serving(registry, tmp_path) as pod:
        metrics = pod.sidecar.metrics
        seen = []
        for server in (None, PodServer(), None, PodServer()):
            pod.sidecar.pool.attach(server)
            seen.append([sample(metrics, name) for name in ("runtime_up", "ready", "runtime_starts_total")])
    assert seen == [[0, 0, 1], [1, 1, 2], [0, 0, 2], [1, 1, 3]]


def test_the_kind_of_model_server_is_shown_while_it_is_down_too(metrics: SidecarMetrics) -> None:
    """Its version comes with it and goes with it; of a server that is not of Marway's runtime no parts are shown."""
    metrics.of_backend("http")
    shown = []
    for change in (lambda: None, lambda: metrics.server_up({"http": "uvicorn"}), metrics.server_down):
        change()
        shown.append([sample(metrics, "model_server_info", backend="http", version=each) for each in ("", "uvicorn")])
    assert shown == [[1, None], [None, 1], [1, None]]
    assert not [each for each in metrics.runtime_build.collect() if each.samples]


async def test_readiness_and_draining(registry: Registry, tmp_path: Path) -> None:
    """What `/readyz` says is in the metrics, and so is a drain."""
    async with serving(registry, tmp_path) as pod:
        metrics = pod.sidecar.metrics
        assert (sample(metrics, "ready"), sample(metrics, "draining")) == (1, 0)
        assert sample(metrics, "registry_stale_seconds") == 0
        await pod.client.post("/drain")
        assert (sample(metrics, "ready"), sample(metrics, "draining")) == (0, 1)
        await pod.client.delete("/drain")
        assert (sample(metrics, "ready"), sample(metrics, "draining")) == (1, 0)


def test_fetches_count_from_nought(metrics: SidecarMetrics) -> None:
    """Every outcome of a fetch is there before its first, so that Prometheus sees the first one as an increase."""
    outcomes = ("ok", "shared", "corrupt", "missing", "no_space", "unavailable")
    assert [sample(metrics, "archive_fetches_total", outcome=outcome) for outcome in outcomes] == [0] * 6


def _deaths(metrics: SidecarMetrics, *told: tuple[str, DeathReason, int]) -> None:
    titles = {"m0": ("some", "1.0")}
    given = [WorkerDeaths(server_name=name, reason=reason, count=count) for name, reason, count in told]
    metrics.count_deaths(given, lambda name: titles.get(name, ("", "")))


def test_workers_that_died_are_counted_by_version_and_reason(metrics: SidecarMetrics) -> None:
    """What the runtime counted since the last look is added; what was before a sidecar, or a runtime, is not."""

    def counted(reason: str, model: str = "some", version: str = "1.0") -> float | None:
        return sample(metrics, "worker_deaths_total", model=model, version=version, reason=reason)

    _deaths(metrics, ("m0", "memory", 5))
    assert counted("memory") is None
    _deaths(metrics, ("m0", "memory", 6), ("m0", "exit", 2), ("stranger", "signal", 1))
    assert (counted("memory"), counted("exit"), counted("signal", "", "")) == (1, 2, 1)
    _deaths(metrics, ("m0", "memory", 6), ("m0", "exit", 2), ("stranger", "signal", 1))
    assert (counted("memory"), counted("exit")) == (1, 2)
    _deaths(metrics)
    _deaths(metrics, ("m0", "memory", 2))
    assert counted("memory") == 3
    metrics.forget("some", "1.0")
    assert counted("memory") is counted("exit") is None


async def test_the_pool_counts_what_its_server_says(
    room: PoolRoom, record: VersionRecord, metrics: SidecarMetrics
) -> None:
    """Deaths go to the version that is known by that name in the server, over its restarts."""

    class Server(FakeServer):
        died: tuple[WorkerDeaths, ...] = ()

        async def status(self) -> ServerStatus:
            return replace(await super().status(), deaths=self.died)

    pool, server = room.pool(metrics, survey_interval_s=0.01), Server()
    pool.attach(server)
    await predict(pool, record)
    server.died = (WorkerDeaths(server_name=server_name(record.id), reason="memory", count=2),)
    await until(lambda: sample(metrics, "worker_deaths_total", model="some", version="1.0", reason="memory") == 2)
    pool.attach(None)
    pool.attach(server)
    await predict(pool, record)
    assert sample(metrics, "worker_deaths_total", model="some", version="1.0", reason="memory") == 2
