"""Runs a version on a pod of each engine, side by side, and takes all of it away again."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import httpx

from marway.answers.golden import ExampleInput, Tolerance
from marway.process.stop_request import watch_for_stop
from marway.records import VersionRecord
from marway_ops.engines.load import Figures, LoadPlan, Target, measure
from marway_ops.engines.proof import EngineProof, answer_difference, prove
from marway_ops.shell.options import DEFAULT_HOME
from marway_ops.up.home import Home
from marway_ops.up.local_pods import LocalPods, Pod
from marway_ops.up.plan import PlannedPod, check_packages, plan_pods
from marway_ops.up.settings import overruled
from marway_ops.up.stopping import close, unless_stopped

__all__ = ["Memory", "Trial", "planned", "try_engines"]

_SPARE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Memory:
    """What the processes of a pod take together, with the version loaded.

    Attributes:
        size_bytes: Their sum.
        kind: `pss`: what processes share is shared out among them; `rss`, where the system does not know that: it
            counts for each of them.
        workers: Of the version.
        server: Whether its model server is among them; not one that was there before.
    """

    size_bytes: int
    kind: Literal["pss", "rss"]
    workers: int
    server: bool = True


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of a version on all engines.

    Attributes:
        proofs: By engine, in the order that was asked for.
        differences: How the second engine answers examples otherwise than the first, by their number from 1; empty
            where one could not be asked.
        figures: Of the load, if there was any.
        memory: By engine, after the load.
    """

    proofs: Mapping[str, EngineProof]
    differences: Mapping[int, str]
    figures: Sequence[Figures] = ()
    memory: Mapping[str, Memory] | None = None

    @property
    def ok(self) -> bool:
        """Whether all engines gave all golden answers and one another's, under load too."""
        proved = all(each.ok for each in self.proofs.values())
        return proved and not self.differences and not any(each.wrong for each in self.figures)


def planned(engines: Sequence[str]) -> tuple[PlannedPod, ...]:
    """Return the pods of a trial, one of each engine; what they lack is better said now than in a log.

    Raises:
        InvalidSettings: The variables do not say what a backend's pod has to know, such as where its server is.
        ModuleNotFoundError: A package that they need is not installed.
    """
    plan = plan_pods(engines)
    check_packages(plan)
    return plan


def try_engines(
    record: VersionRecord,
    examples: Sequence[ExampleInput],
    plan: Sequence[PlannedPod],
    *,
    registry: str,
    directory: Path,
    tolerance: Tolerance,
    load: LoadPlan | None = None,
    step: Callable[[str], None],
    noticed: Callable[[str], None],
) -> Trial:
    """Start a pod of each engine, have it load and prove a version, ask it, and stop it. Blocks.

    Every process has ended when this returns or raises, also upon SIGINT and SIGTERM.

    Args:
        record: The version.
        examples: Its golden inputs.
        plan: Pods, each of another engine.
        registry: URL of a registry that has the version.
        directory: Where pods may keep what they need; nobody else's.
        tolerance: How far numbers of equal answers of two engines may lie apart.
        load: Under which load to measure them; None for none.
        step: Told what begins.
        noticed: Told what a person should know of, such as a part that died.

    Raises:
        MarwayError: A pod does not start.
        KeyboardInterrupt: A signal came.
    """
    trial = asyncio.run(_try(record, examples, plan, registry, directory, tolerance, load, step, noticed))
    if trial is None:
        raise KeyboardInterrupt
    return trial


async def _try(
    record: VersionRecord,
    examples: Sequence[ExampleInput],
    plan: Sequence[PlannedPod],
    registry: str,
    directory: Path,
    tolerance: Tolerance,
    load: LoadPlan | None,
    step: Callable[[str], None],
    noticed: Callable[[str], None],
) -> Trial | None:
    for variable, _ in overruled(os.environ, ("runtime", "sidecar")):
        noticed(f"the variable {variable} has no effect here: the pods are made for this alone")
    stop = watch_for_stop()
    home = Home(directory)
    home.store.mkdir(parents=True, exist_ok=True)
    pods = LocalPods(
        home,
        registry=registry,
        plan=plan,
        classes=_classes(),
        started=lambda what, seconds: None,
        noticed=noticed,
        logs_stay=False,
    )
    engines = [pod.engine for pod in plan]
    found: list[Trial] = []
    stopped = threading.Event()

    async def work() -> None:
        step(f"starting a pod of {' and one of '.join(engines)}")
        await pods.start()
        proofs: dict[str, EngineProof] = {}
        for pod in pods.pods:  # one after the other: loads that compete for the processor say nothing of their time
            step(f"{pod.engine}: loading {record.name} {record.version} and asking its golden examples")
            proofs[pod.engine] = await prove(pod, record, examples)
        differences = _between([*proofs.values()], tolerance)
        if load is None or not all(each.failure is None for each in proofs.values()):
            found.append(Trial(proofs, differences))
            return
        step(f"asking {' and '.join(engines)} in turns, with {', '.join(map(str, load.clients))} clients")
        targets = [
            Target(
                pod.engine,
                f"{pod.url}/predict/{record.name}/{record.version}",
                examples,
                proofs[pod.engine].answers,
            )
            for pod in pods.pods
        ]
        timeout_s = record.serving.predict_timeout_s + _SPARE_S
        figures = await asyncio.to_thread(
            measure, targets, load, tolerance=tolerance, timeout_s=timeout_s, stopped=stopped
        )
        memory = {pod.engine: await _memory(pods, pod) for pod in pods.pods}
        found.append(Trial(proofs, differences, figures, memory))

    try:
        await unless_stopped(stop, work())
        if found:
            step("stopping the pods")
    finally:
        stopped.set()
        await close(pods)
    return found[0] if found else None


def _classes() -> Path | None:
    """Return where a `marway up` left an archive of Java's classes, if one did.

    A new one is not written: that takes a processor for seconds, just when something is measured.
    """
    kept = Home(DEFAULT_HOME.absolute()).java
    return kept if any(kept.glob("*.jsa")) else None


def _between(proofs: Sequence[EngineProof], tolerance: Tolerance) -> dict[int, str]:
    if len(proofs) < 2:
        return {}
    first, second = proofs
    pairs = zip(first.answers, second.answers, strict=False)  # one that failed has none
    found = ((number, answer_difference(*pair, tolerance)) for number, pair in enumerate(pairs, 1))
    return {number: line for number, line in found if line is not None}


async def _memory(pods: LocalPods, pod: Pod) -> Memory:
    async with httpx.AsyncClient(trust_env=False) as client:
        models = (await client.get(f"{pod.url}/models")).json()
    size_bytes, kind = await asyncio.to_thread(_size_of, pods.pids(pod))
    return Memory(size_bytes, kind, sum(each["workers"] for each in models), server=pods.has_server(pod))


def _size_of(pids: Sequence[int]) -> tuple[int, Literal["pss", "rss"]]:
    """Return the memory of processes and of all below them, in bytes."""
    import psutil  # of the extra `runtime`, which pods need

    sizes = []
    kind: Literal["pss", "rss"] = "pss"
    for pid in pids:
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            try:
                found = process.memory_full_info()
            except psutil.Error:
                continue  # it ended, and takes none
            if not hasattr(found, "pss"):
                kind = "rss"
            sizes.append(int(getattr(found, "pss", found.rss)))
    return sum(sizes), kind
