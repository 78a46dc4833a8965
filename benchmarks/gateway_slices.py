"""A gateway that does something for predictions for a moment, and then does not, and so on.

`gateway_slices.py WHAT REPORT ARGUMENTS…`: it observes `metadata` or `bodies`, or takes the model's label to be
`divided` between a base and a candidate; the arguments are those of `marway gateway`. What that costs is less than what
two gateways, or two runs of one, differ by. Here both are the same process within a quarter of a second,
and the processor time of each slice is its own thread's: other load on the machine hits both alike.

The report is JSON: `predictions`, and for how many of them it was done (`observed`, `divided`); `slices` of mode,
seconds of the event loop's thread and predictions; `threads_s`, the seconds of the threads that make files; `log_s`, of
those that write the log.
"""

import asyncio
import atexit
import json
import random
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace as changed
from pathlib import Path
from typing import Any

from gateway_without import replace

OFF, DIVIDED = "off", "divided"
_SLICE_S = 0.25
WARM_S = 12.0
"""From the first prediction on, until the first file was made: that loads modules, once in a process."""
_WRITER = "observations"
_GRACE_S = 0.08
"""From a change on, until the predictions that were begun before have ended."""


class Slices:
    """Changes the mode, and takes down what each slice cost.

    Args:
        what: `metadata`, `bodies` or `divided`, in turns with nothing.
    """

    def __init__(self, what: str) -> None:
        self.mode = OFF
        self.report: dict[str, Any] = {"slices": [], "threads_s": 0.0, "log_s": 0.0, "divided": 0}
        self._modes = [OFF, what]
        self._turn: list[str] = []
        self._ended = self._observed = 0
        self._storing_s = 0.0
        self._first: tuple[float, float] | None = None
        self._warm = False

    def ended(self) -> None:
        """Count a prediction; the first begins it all, some seconds later."""
        self._ended += 1
        self._observed += self.mode != OFF
        if not self._warm:
            self._warm = True
            self.mode = self._modes[1]  # what is done once in a process is done then
            asyncio.get_running_loop().call_later(WARM_S, self._change)

    def _change(self) -> None:
        if self._first is None:
            self._first, self._ended, self._observed = self._threads(), 0, 0
        if not self._turn:
            self._turn = random.sample(self._modes, len(self._modes))
        self.mode = self._turn.pop()
        asyncio.get_running_loop().call_later(_GRACE_S, self._begin)

    def _begin(self) -> None:
        asyncio.get_running_loop().call_later(_SLICE_S, self._end, time.thread_time(), self._ended)

    def _end(self, began_s: float, ended: int) -> None:
        if not any(each.name == _WRITER for each in threading.enumerate()):
            return  # the gateway ends, and what that thread took is not to be known any more
        spent, count = time.thread_time() - began_s, self._ended - ended
        if count:
            self.report["slices"].append((self.mode, spent, count))
        assert self._first is not None
        now = self._threads()
        self.report["threads_s"], self.report["log_s"] = (at - was for at, was in zip(now, self._first, strict=True))
        self.report |= {"predictions": self._ended, "observed": self._observed}
        self._change()

    def _threads(self) -> tuple[float, float]:
        return _thread_s(_WRITER) + self._storing_s, _thread_s("write-log")

    def storing(self, run: Callable[..., None]) -> Callable[..., None]:
        """Return what a thread runs that brings files to the store; such threads come and go."""

        def timed(*args: Any) -> None:
            began = time.thread_time()
            run(*args)
            self._storing_s += time.thread_time() - began

        return timed


def _thread_s(name: str) -> float:
    ids = [each.native_id for each in threading.enumerate() if each.name == name]
    return sum(int(Path(f"/proc/self/task/{each}/schedstat").read_text().split()[0]) for each in ids) / 1e9


def observing(slices: Slices) -> None:
    """Have predictions observed in some slices."""
    from marway_gateway.observe import telemetry

    new_id = telemetry.new_prediction_id
    # What has no id is no prediction that could be observed.
    replace("marway_gateway.observe.telemetry", "new_prediction_id", lambda: None if slices.mode == OFF else new_id())
    replace("marway_gateway.predict.pipeline", "drawn", lambda _: slices.mode)


def dividing(slices: Slices) -> None:
    """Have the label divided in some slices, evenly, between its version and the same once more."""
    from marway.records import utc_now
    from marway.refs import new_ulid
    from marway.resolve import Resolved, Resolver
    from marway.resolve.resolved import Divided
    from marway.traffic import GUARDS, Traffic
    from marway_gateway.traffic.division import Division

    look, divide = Resolver.lookup, Division.divide
    known: list[tuple[Resolved, Resolved]] = []

    def lookup(self: Resolver, name: str, selector: str | None) -> Resolved | None:
        found = look(self, name, selector)
        if found is None or slices.mode == OFF:
            return found
        if not known or known[0][0] is not found:
            now = utc_now()
            traffic = Traffic(
                rollout=new_ulid(),
                base=found.record.version,
                candidate=found.record.version,
                percent=50,
                steps=(50, 100),
                step_time_s=3600,
                guards=dict.fromkeys(GUARDS),
                began=now,
                step_began=now,
                by="bench",
            )
            known[:] = [(found, changed(found, divided=Divided(traffic, found, ())))]
        return known[0][1]

    def divide_and_count(self: Division, info: Any, base: Resolved) -> Resolved:
        slices.report["divided"] += 1
        return divide(self, info, base)

    replace("marway.resolve.resolver:Resolver", "lookup", lookup)
    replace("marway_gateway.traffic.division:Division", "divide", divide_and_count)


def main() -> int:
    what, report = sys.argv[1], Path(sys.argv[2])
    slices = Slices(what)
    from marway_gateway.observe import telemetry
    from marway_gateway.observe.observations.rounds import Round

    finish = telemetry.Telemetry.finish

    def finish_and_count(self: Any, info: Any) -> None:
        finish(self, info)
        if info.surface is not None:
            slices.ended()

    (dividing if what == DIVIDED else observing)(slices)
    replace("marway_gateway.observe.telemetry:Telemetry", "finish", finish_and_count)
    replace("marway_gateway.observe.observations.rounds:Round", "_run", slices.storing(Round._run))
    atexit.register(lambda: report.write_text(json.dumps(slices.report)))
    from marway_ops.cli.main import main as marway

    sys.argv = ["marway", "gateway", *sys.argv[3:]]
    marway()
    return 0


if __name__ == "__main__":
    sys.exit(main())
