"""Which files of ours a running `marway up` goes through for what it is asked: `python tests/support/way.py`.

Counts what really runs in gateway and sidecar and prints each file with its lines and the lines of its functions that
run (`--functions`: their names as well), for a small prediction and for what loading its model adds to that.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import psutil

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.up import Up, processes_of

ROOT = Path(__file__).parents[2]
IDLE_S = 3.0  # what is done at intervals is done within
ROOMS = ("core", "gateway", "sidecar", "archiver", "handlers")


class Function(NamedTuple):
    """A function that ran."""

    file: Path
    name: str
    lines: int
    background: bool
    """It ran in a task that was there before anything was asked."""

    @classmethod
    def of(cls, line: str) -> Function:
        file, name, lines, background = line.split("\t")
        return cls(Path(file).relative_to(ROOT), name, int(lines), background == "1")


class Way:
    """What ran."""

    def __init__(self, functions: set[Function]) -> None:
        self.functions = functions

    @property
    def files(self) -> list[Path]:
        return sorted({function.file for function in self.functions})

    @property
    def lines(self) -> int:
        """Of these files, whole."""
        return sum(map(lines_of, self.files))

    def without(self, other: Way) -> Way:
        """Return what is in files that ``other`` does not go through."""
        files = set(other.files)
        return Way({function for function in self.functions if function.file not in files})

    def text(self, *, functions: bool = False) -> str:
        rows = []
        for file in self.files:
            run = sorted(function for function in self.functions if function.file == file)
            names = " " + ", ".join(f"{function.name} {function.lines}" for function in run) if functions else ""
            rows.append(f"{lines_of(file):5d} {sum(function.lines for function in run):4d} {file}{names}")
        run_lines = sum(function.lines for function in self.functions)
        return "\n".join([*rows, f"{self.lines:5d} {run_lines:4d} lines in {len(self.files)} files"])


class TracedUp:
    """A `marway up` whose processes can be told to write down which files run.

    Args:
        up: It, running.
        into: Where its processes write.
    """

    def __init__(self, up: Up, into: Path) -> None:
        self.up = up
        self._into = into

    def way_of(self, ask: Callable[[], object], *, before: Callable[[], object] = lambda: None, times: int) -> Way:
        """Return what runs whenever ``ask`` is called: what runs only now and then is not on its way.

        Args:
            ask: Called between the two signals.
            before: Called ahead of them.
            times: How often it is asked. What a process does at intervals has to be missed once.
        """
        functions = set.intersection(*(self._run_by(ask, before) for _ in range(times)))
        return Way(functions)

    def _run_by(self, ask: Callable[[], object], before: Callable[[], object]) -> set[Function]:
        processes = [process for process in processes_of(self.up.home) if _is_traced(process)]
        before()
        for process in processes:
            (self._into / str(process.pid)).unlink(missing_ok=True)
            process.send_signal(signal.SIGUSR1)
        ask()
        for process in processes:
            process.send_signal(signal.SIGUSR2)
        found: set[Function] = set()
        for process in processes:
            written = self._into / str(process.pid)
            deadline = time.monotonic() + 60
            while not written.exists():
                assert time.monotonic() < deadline, process.cmdline()
                time.sleep(0.01)  # for another process, which says nothing
            found |= {Function.of(line) for line in written.read_text().splitlines() if _is_ours(line)}
        return found


@contextlib.contextmanager
def traced_up(directory: Path, *arguments: str) -> Iterator[TracedUp]:
    """Start a `marway up` to be traced."""
    into = directory / "traced"
    into.mkdir()
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent / "traced"), os.environ.get("PYTHONPATH"))))
    env = {"PYTHONPATH": path, "MARWAY_TEST_TRACE": str(into)}
    with Up(directory / "home", *arguments, env=env) as up:
        yield TracedUp(up, into)


def lines_of(file: Path) -> int:
    return len((ROOT / file).read_text().splitlines())


def _is_ours(line: str) -> bool:
    return any(line.startswith(f"{ROOT}/{room}/") for room in ROOMS) and "_pb2" not in line


def _is_traced(process: psutil.Process) -> bool:
    """Return whether this is a Python that waits for the signals: others would die of them."""
    with contextlib.suppress(psutil.Error, OSError):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        caught = int(status["SigCgt"], 16)
        wanted = 1 << signal.SIGUSR1 - 1 | 1 << signal.SIGUSR2 - 1
        return process.name().startswith(("python", "marway-worker")) and caught & wanted == wanted
    return False


def ways(traced: TracedUp) -> tuple[Way, Way]:
    """Return the way of a small prediction over a kept connection, and what loading its model adds to it.

    What processes do at intervals, asked or not, is no part of the load.
    """
    admin = traced.up.ready["admin"]
    with httpx.Client(base_url=traced.up.gateway, timeout=120) as client:

        def ask() -> None:
            client.post("/predict/intent", content="wake me at seven").raise_for_status()

        def unload() -> None:
            client.post(f"{admin}/models/intent/versions/1.0/unload", json={}).raise_for_status()

        ask()
        ask()
        warm = Way({function for function in traced.way_of(ask, times=20).functions if not function.background})
        cold = traced.way_of(ask, before=unload, times=4)

        def load() -> None:
            unload()
            ask()

        # Behind a load, for what was just loaded is measured at intervals too.
        always = traced.way_of(lambda: time.sleep(IDLE_S), before=load, times=1)
    at_intervals = {(function.file, function.name) for function in always.functions}
    loading = {function for function in cold.functions if (function.file, function.name) not in at_intervals}
    return warm, Way(loading).without(warm)


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, traced_up(Path(scratch), "--demo") as traced:
        warm, cold = ways(traced)
    functions = "--functions" in sys.argv
    print("A small prediction:", warm.text(functions=functions), sep="\n")
    print("Loading its model, besides:", cold.text(functions=functions), sep="\n")


if __name__ == "__main__":
    main()
