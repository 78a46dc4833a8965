"""In a process that a test traces: which functions of ours run between two signals.

Python imports this at its start where it is on PYTHONPATH. SIGUSR1 begins; SIGUSR2 ends and writes the functions that
ran, a line each (file, name, lines, 1 if it was a task begun before; tabs between), to `$MARWAY_TEST_TRACE/PID`.
"""

import contextlib
import os
import signal
import sys
import threading
from pathlib import Path
from types import CodeType

_seen: set[tuple[CodeType, bool]] = set()
_before: set[object] = set()
_on = False


def _profile(frame, event, _):  # type: ignore[no-untyped-def]  # of an interpreter's inner life
    if _on and event == "call":
        _seen.add((frame.f_code, bool(_before) and _task() in _before))


def _task() -> object:
    asyncio = sys.modules["asyncio"]
    try:
        return asyncio.current_task()
    except RuntimeError:  # in a thread without a loop
        return None


def _begin(*_: object) -> None:
    global _on
    _seen.clear()
    _before.clear()
    if "asyncio" in sys.modules:
        with contextlib.suppress(RuntimeError):
            _before.update(sys.modules["asyncio"].all_tasks())
    _on = True
    sys.setprofile(_profile)


def _end(*_: object) -> None:
    global _on
    sys.setprofile(None)
    _on = False
    into = Path(os.environ["MARWAY_TEST_TRACE"])
    part = into / f".{os.getpid()}"
    part.write_text("\n".join(sorted(_line_of(code, old) for code, old in _seen if "/marway" in code.co_filename)))
    part.replace(into / str(os.getpid()))


def _line_of(code: CodeType, old: bool) -> str:
    last = max(line for *_, line in code.co_lines() if line is not None)
    return f"{code.co_filename}\t{code.co_qualname}\t{last - code.co_firstlineno + 1}\t{int(old)}"


if "MARWAY_TEST_TRACE" in os.environ:
    threading.setprofile(_profile)
    signal.signal(signal.SIGUSR1, _begin)
    signal.signal(signal.SIGUSR2, _end)
