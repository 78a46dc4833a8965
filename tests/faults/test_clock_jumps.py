"""A wall clock that jumps under everything that serves: gateway, sidecar, runtime, TorchServe and its workers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import publish
from support.gateways import metric
from support.jumping_clock import JumpingClock
from support.open_loop import OpenLoop
from support.up import Up, wait_until

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.faults,
    pytest.mark.timeout(600),
    pytest.mark.skipif(JumpingClock.reason_not() is not None, reason=str(JumpingClock.reason_not())),
    pytest.mark.extended,  # tests/gateway/predict/test_retry.py and tests/sidecar have the deadlines
]

MODELS = Path(__file__).parents[1] / "e2e" / "models"
HOUR, DAY = 3600, 86400
RATE = 20
WAIT_S = 120
STALE_S = 2.0
"""The staleness bound that is promised for labels."""


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> JumpingClock:
    return JumpingClock(tmp_path_factory.mktemp("clock"))


@pytest.fixture(scope="module")
def up(clock: JumpingClock, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A `marway up` that goes by that clock, as the one who publishes does not."""
    with Up(tmp_path_factory.mktemp("jumps") / "home", env=clock.environment) as running:
        for name, version in (("probe", "1.0"), ("probe", "2.0"), ("hold", "1.0")):
            label = "PROD" if version == "1.0" else None
            publish(
                model_name=name,
                version=version,
                handler=str(MODELS / f"{name}.py"),
                registry=running.registry,
                label=label,
            )
        for path in ("probe/1.0", "probe/2.0", "hold/1.0"):
            loaded = httpx.post(
                f"{running.ready['pods'][0]['url']}/models/{path}/load", timeout=WAIT_S, trust_env=False
            )
            loaded.raise_for_status()
        yield running


def test_fault_clock_jumps(up: Up, clock: JumpingClock) -> None:
    """An hour and a day forwards and back: nothing fails, nothing is ejected or loaded again, labels are followed."""
    registry = Registry(open_store(up.registry))
    url = f"{up.gateway}/predict/probe"
    pod = up.ready["pods"][0]["url"]
    loads = metric(pod, "marway_sidecar_model_loads_total")
    ejected = metric(up.gateway, "marway_gateway_ejections_total")
    assert loads >= 3
    with OpenLoop([url], rate=RATE) as load:
        load.wait_for_more(RATE)
        for number, ahead_s in enumerate((HOUR, 0, DAY, -DAY, 0)):
            clock.jump_to(ahead_s)
            load.wait_for_more(RATE)
            version = ("2.0", "1.0")[number % 2]
            registry.release("probe", version, forced=True, by="test")
            moved_at = time.monotonic()
            wait_until(
                lambda version=version: load.samples[-1].version == version,
                timeout_s=WAIT_S,
                what=f"{version} answers",
            )
            load.wait_for_more(RATE)
            late = [each for each in load.samples if each.sent_at > moved_at + STALE_S and each.version != version]
            assert late == []
    print(f"\n{len(load.samples)} requests, longest {max(sample.took_s for sample in load.samples):.2f} s")
    assert load.failed == []
    assert metric(pod, "marway_sidecar_model_loads_total") == loads
    assert metric(up.gateway, "marway_gateway_ejections_total") == ejected


@pytest.mark.parametrize("ahead_s", [DAY, -DAY], ids=["forwards", "back"])
def test_a_deadline_is_no_time_of_day(up: Up, clock: JumpingClock, tmp_path: Path, ahead_s: int) -> None:
    """A request that a jump meets half-way has neither less time nor more."""
    clock.jump_to(0)
    kept, lost = tmp_path / "kept", tmp_path / "lost"

    def ask(path: Path, timeout_ms: int) -> httpx.Response:
        return httpx.post(
            f"{up.gateway}/predict/hold",
            json={"hold": str(path)},
            headers={"x-request-timeout-ms": str(timeout_ms)},
            timeout=WAIT_S,
            trust_env=False,
        )

    with ThreadPoolExecutor(1) as clients:
        try:
            asked = clients.submit(ask, kept, 100_000)
            wait_until(kept.with_name("kept.reached").exists, timeout_s=WAIT_S, what="the handler has it")
            clock.jump_to(ahead_s)
            kept.touch()
            assert asked.result(WAIT_S).status_code == 200
            clock.jump_to(0)
            asked = clients.submit(ask, lost, 3000)
            wait_until(lost.with_name("lost.reached").exists, timeout_s=WAIT_S, what="the handler has it")
            clock.jump_to(ahead_s)
            assert asked.result(WAIT_S).status_code == 504
        finally:
            kept.touch()
            lost.touch()
            clock.jump_to(0)
