"""Workers that died are counted once, and the counts stay bounded."""

from __future__ import annotations

import signal

from marway.wire.runtime import WorkerDeaths
from marway_runtime.metrics import Deaths, RuntimeMetrics


def test_a_worker_killed_for_its_memory_is_counted_once() -> None:
    """The fork server tells of the same end; a later worker with that pid is another one."""
    deaths = Deaths(RuntimeMetrics())
    deaths.killed(7, "m", forked=True)
    deaths.ended(7, -signal.SIGKILL, "m")
    assert deaths.counts() == (WorkerDeaths(server_name="m", reason="memory", count=1),)
    deaths.ended(7, -signal.SIGKILL, "m")
    assert {each.reason: each.count for each in deaths.counts()} == {"memory": 1, "killed": 1}
    deaths.killed(8, "m", forked=False)  # a plain worker, of which nobody else tells
    deaths.ended(8, 1, "m")
    assert {each.reason: each.count for each in deaths.counts()} == {"memory": 2, "killed": 1, "exit": 1}


def test_counts_of_many_versions_do_not_pile_up() -> None:
    """The latest thousand are told; the runtime's own metric, which has no names, keeps all."""
    metrics = RuntimeMetrics()
    deaths = Deaths(metrics)
    for number in range(1500):
        deaths.ended(number, -signal.SIGSEGV, f"m{number}")
    told = deaths.counts()
    assert (len(told), told[-1].server_name) == (1000, "m1499")
    assert metrics.registry.get_sample_value("marway_runtime_worker_deaths_total", {"reason": "signal"}) == 1500
