"""One such process: `python -m marway_gateway.conversion`. It takes calls on stdin and gives results on stdout.

A call is a pickle of a function and its arguments, a result a pickle of whether it returned and of what it returned or
raised. Only the gateway that started the process writes to it; it ends when that gateway does.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sys
from pathlib import Path
from typing import Any, Final

from marway.errors import MarwayError, Overloaded, clip

__all__ = ["main"]

_NICE: Final = 5
"""Whoever sent a large body can wait a little longer; the gateway's event loop, which all wait for, comes first."""
_KILLED_FIRST: Final = "1000"


def main() -> None:
    """Answer calls until stdin ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the gateway, which finishes what it has first
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # only Linux has it: when memory is short, this process goes and not the gateway
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    calls, results = os.fdopen(0, "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever prints must not write among the results
    while True:
        try:
            function, arguments, named = pickle.load(calls)  # noqa: S301  # from the gateway that started this process
        except EOFError:
            return
        try:
            answer: tuple[bool, Any] = True, function(*arguments, **named)
        except MarwayError as exc:
            answer = False, exc
        except MemoryError:
            answer = False, Overloaded("the gateway has not the memory to convert this body")
        except Exception as exc:
            print(f"a conversion failed: {exc!r}", file=sys.stderr, flush=True)
            answer = False, MarwayError(f"a body could not be converted: {clip(repr(exc), 200)}")
        try:
            pickle.dump(answer, results, protocol=pickle.HIGHEST_PROTOCOL)
            results.flush()
        except BrokenPipeError:
            return  # the gateway is gone
        del function, arguments, named, answer  # it may be much, and the next call may be long in coming


if __name__ == "__main__":
    main()
