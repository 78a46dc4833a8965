"""The rollouts that this gateway process has a part in: where answers are counted, and where to ask how they stand."""

from __future__ import annotations

from typing import Final

from marway.traffic import GUARDS, Traffic, run_of
from marway.wire.model_run import UNKNOWN, ModelRun
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.traffic.assignment import Assignment
from marway_gateway.traffic.evidence import Side, Tally
from marway_gateway.traffic.rollouts.running import Running

__all__ = ["Rollouts"]

_NO_ROOM: Final = frozenset({"no_pod_available", "no_room_to_spare", "overloaded"})


class Rollouts:
    """Counts answers of divided labels. Nothing here waits; `Watcher` does the rest."""

    def __init__(self) -> None:
        self._running: dict[tuple[str, str, str], Running] = {}

    @property
    def running(self) -> list[Running]:
        """Those that this process knows of."""
        return list(self._running.values())

    def of(self, model: str, label: str, traffic: Traffic) -> Running:
        """Return what this process knows of a label's rollout, or shadow copies; from now on it watches them.

        Args:
            model: The model's name as it is written.
            label: Which label.
            traffic: How its requests are divided, as its state said last.
        """
        which = model, label, run_of(label, traffic)
        known = self._running.get(which)
        if known is None:
            guards = traffic.guards if traffic.rollout is not None else GUARDS  # of copies alone, all is told
            known = self._running[which] = Running(model, label, traffic, Tally(guards))
        return known

    def tally(self, model: str, label: str, traffic: Traffic) -> Tally:
        """Return where answers of a divided label are counted, such as pairs of a shadow copy and its original."""
        return self.of(model, label, traffic).tally

    def answered(self, info: RequestInfo, assignment: Assignment) -> None:
        """Count the answer to a caller of a label that is divided, once it ended.

        Whatever is no answer is a failure, except that there was no room: a candidate's callers get the base then.
        Callers that send what is wrong, or leave, do so for either version alike, as chance divides them; where more of
        the candidate's do, it refuses what the base takes, or hangs. Times say nothing where answers may come from the
        cache, which knows the base's better than the candidate's.

        Args:
            info: The request's.
            assignment: Which side it was drawn to, which is the side it counts for.
        """
        if info.model is None or info.label is None or not assignment.counted:
            return
        if info.error in _NO_ROOM and not assignment.failed:
            return
        failed = assignment.failed or info.outcome != "ok"
        run = UNKNOWN if assignment.failed else ModelRun.parse(info.run)
        side = Side(failed=failed, finite=run.finite, model_s=run.model_s if info.cache is None else None)
        traffic = assignment.traffic
        tally = self.of(info.model, info.label, traffic).tally
        tally.live(traffic.step, traffic.percent / 100, side, candidate=assignment.candidate)

    def forget(self, running: Running) -> None:
        """Let go of one that ended."""
        self._running.pop((running.model, running.label, running.run), None)
