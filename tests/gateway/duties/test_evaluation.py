"""Evaluations run in a process of their own: what becomes of its answer, its failure, and its time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from marway.errors import MarwayError
from marway_gateway.duties import evaluation
from marway_gateway.duties.evaluation import Evaluator
from marway_observations.evaluate.results import Evaluation

NOTHING = '{"at": "2026-11-30T12:00:00Z", "cpu_s": 2.0, "rules": RULES}'


@pytest.fixture
def evaluator(tmp_path: Path) -> Callable[..., tuple[Evaluator, list[Evaluation]]]:
    """Make an evaluator whose process runs a script in the place of the real one."""

    def make(script: str, *, interval_s: float = 0.01) -> tuple[Evaluator, list[Evaluation]]:
        found: list[Evaluation] = []
        made = Evaluator(
            "quality",
            registry=tmp_path.as_uri(),
            observations=None,
            disk_bytes=1000,
            interval_s=interval_s,
            found=found.append,
        )
        made._command = [sys.executable, "-I", "-S", "-c", script]
        return made, found

    return make


Make = Callable[..., tuple[Evaluator, list[Evaluation]]]


def test_it_runs_on_the_loop_that_gateways_run_on(evaluator: Make) -> None:
    """uvloop starts processes in its own way, which is the one that counts."""
    some, found = evaluator(f"print('{NOTHING.replace('RULES', '2')}')")
    assert uvloop.run(some.run()) == pytest.approx(18.0)
    some.close()
    assert len(found) == 1


async def test_the_time_to_the_next_follows_from_the_last(evaluator: Make) -> None:
    """Where no rule is declared it is five intervals; else evaluations take a tenth of a processor at most."""
    nothing, found = evaluator(f"print('{NOTHING.replace('RULES', '0')}')", interval_s=60.0)
    assert await nothing.run() == 300.0
    nothing.close()
    some, found = evaluator(f"print('{NOTHING.replace('RULES', '2')}')")
    assert await some.run() == pytest.approx(18.0)
    assert [each.rules for each in found] == [2]
    assert some._copies is not None
    assert some._copies.is_dir()
    copies = some._copies
    some.close()
    assert not copies.exists()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("import sys; print('the store is away', file=sys.stderr); sys.exit(1)", "status 1: the store is away"),
        ("import os; os.kill(os.getpid(), 9)", "status -9"),
        ("print('{}')", "Field required"),
    ],
)
async def test_a_failure_has_the_words_of_the_process(evaluator: Make, script: str, words: str) -> None:
    """Whatever ends it otherwise than with a document is an error that says why."""
    broken, found = evaluator(script)
    with pytest.raises(MarwayError, match=words):
        await broken.run()
    broken.close()
    assert found == []


async def test_it_ends_with_who_waits_for_it(evaluator: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gateway that loses the lease, or waits too long, ends the process."""
    script = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"

    async def pid() -> int:
        async with asyncio.timeout(10):
            while not (tmp_path / "pid").exists() or not (text := (tmp_path / "pid").read_text()):
                await asyncio.sleep(0.01)
        return int(text)

    endless, _ = evaluator(script)
    running = asyncio.create_task(endless.run())
    first = await pid()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    monkeypatch.setattr(evaluation, "WITHIN_S", 0.3)
    with pytest.raises(MarwayError, match=r"not ended after 0\.3 s"):
        await endless.run()
    endless.close()
