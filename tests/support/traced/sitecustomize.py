"""In a process that a test traces: which functions of ours run between two signals.

Python imports this at its start where it is on PYTHONPATH. SIGUSR1 begins; SIGUSR2 ends and writes the functions that
ran, a line each (file, name, lines; tabs between), to `$MARWAY_TEST_TRACE/PID`.
"""

import os
import signal
import sys
import threading
from pathlib import Path
from types import CodeType

_seen: set[CodeType] = set()
_on = False


def _profile(frame, event, _):  # type: ignore[no-untyped-def]  # of an interpreter's inner life
    if _on and event == "call":
        _seen.add(frame.f_code)


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
    part.write_text("\n".join(sorted(_line_of(each) for each in _seen if "/marway" in each.co_filename)))
    part.replace(into / str(os.getpid()))


def _line_of(code: CodeType) -> str:
    last = max(line for *_, line in code.co_lines() if line is not None)
    return f"{code.co_filename}\t{code.co_qualname}\t{last - code.co_firstlineno + 1}"


if "MARWAY_TEST_TRACE" in os.environ:
    threading.setprofile(_profile)
    signal.signal(signal.SIGUSR1, _begin)
    signal.signal(signal.SIGUSR2, _end)
