"""In a process that a test traces: which files of ours run between two signals.

Python imports this at its start where it is on PYTHONPATH. SIGUSR1 begins; SIGUSR2 ends and writes the files that ran,
a line each, to `$MARWAY_TEST_TRACE/PID`.
"""

import os
import signal
import sys
import threading
from pathlib import Path

_seen: set[str] = set()
_on = False


def _profile(frame, event, _):  # type: ignore[no-untyped-def]  # of an interpreter's inner life
    if _on and event == "call":
        _seen.add(frame.f_code.co_filename)


def _begin(*_: object) -> None:
    global _on
    _seen.clear()
    _on = True
    sys.setprofile(_profile)


def _end(*_: object) -> None:
    global _on
    sys.setprofile(None)
    _on = False
    into = Path(os.environ["MARWAY_TEST_TRACE"])
    part = into / f".{os.getpid()}"
    part.write_text("\n".join(sorted(each for each in _seen if "/marway" in each)))
    part.replace(into / str(os.getpid()))


if "MARWAY_TEST_TRACE" in os.environ:
    threading.setprofile(_profile)
    signal.signal(signal.SIGUSR1, _begin)
    signal.signal(signal.SIGUSR2, _end)
