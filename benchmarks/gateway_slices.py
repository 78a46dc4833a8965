"""A gateway that observes predictions for a moment, and then does not, and so on.

`gateway_slices.py OBSERVE REPORT ARGUMENTS…`: the arguments are those of `marway gateway`. What observations cost is
less than what two gateways, or two runs of one, differ by. Here both are the same process within a quarter of a second,
and the processor time of each slice is its own thread's: other load on the machine hits both alike.

The report is JSON: `slices` of mode, seconds of the event loop's thread and predictions; `threads_s`, the seconds of
all other threads but those that write the log, which make the files; `log_s`, those of the log.
"""

import asyncio
import atexit
import json
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

from gateway_without import replace

OFF = "off"
_SLICE_S = 0.25
_GRACE_S = 0.08
"""From a change on, until the predictions that were begun before have ended."""


class Slices:
    """Changes the mode, and takes down what each slice cost.

    Args:
        observe: `metadata` or `bodies`, in turns with nothing.
    """

    def __init__(self, observe: str) -> None:
        self.mode = OFF
        self.report: dict[str, Any] = {"slices": [], "threads_s": 0.0, "log_s": 0.0}
        self._modes = [OFF, observe]
        self._turn: list[str] = []
        self._ended = 0
        self._first: tuple[float, float] | None = None

    def ended(self) -> None:
        """Count a prediction; the first begins it all."""
        self._ended += 1
        if self._first is None:
            self._first = self._threads()
            self._change()

    def _change(self) -> None:
        if not self._turn:
            self._turn = random.sample(self._modes, len(self._modes))
        self.mode = self._turn.pop()
        asyncio.get_running_loop().call_later(_GRACE_S, self._begin)

    def _begin(self) -> None:
        asyncio.get_running_loop().call_later(_SLICE_S, self._end, time.thread_time(), self._ended)

    def _end(self, began_s: float, ended: int) -> None:
        spent, count = time.thread_time() - began_s, self._ended - ended
        if count:
            self.report["slices"].append((self.mode, spent, count))
        assert self._first is not None
        now = self._threads()
        self.report["threads_s"], self.report["log_s"] = (at - was for at, was in zip(now, self._first, strict=True))
        self.report["predictions"] = self._ended
        self._change()

    def _threads(self) -> tuple[float, float]:
        logs = [each.native_id for each in threading.enumerate() if each.name == "write-log"]
        log_s = sum(int(Path(f"/proc/self/task/{each}/schedstat").read_text().split()[0]) for each in logs) / 1e9
        return time.process_time() - time.thread_time() - log_s, log_s


def main() -> int:
    observe, report = sys.argv[1], Path(sys.argv[2])
    slices = Slices(observe)
    from marway_gateway.observe import telemetry

    new_id, finish = telemetry.new_prediction_id, telemetry.Telemetry.finish

    def finish_and_count(self: Any, info: Any) -> None:
        finish(self, info)
        if info.surface is not None:
            slices.ended()

    # What has no id is no prediction that could be observed.
    replace("marway_gateway.observe.telemetry", "new_prediction_id", lambda: None if slices.mode == OFF else new_id())
    replace("marway_gateway.predict.pipeline", "drawn", lambda _: slices.mode)
    replace("marway_gateway.observe.telemetry:Telemetry", "finish", finish_and_count)
    atexit.register(lambda: report.write_text(json.dumps(slices.report)))
    from marway_ops.cli.main import main as marway

    sys.argv = ["marway", "gateway", *sys.argv[3:]]
    marway()
    return 0


if __name__ == "__main__":
    sys.exit(main())
