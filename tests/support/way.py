"""Which files of ours a running `marway up` goes through for one thing that it is asked: `python tests/support/way.py`.

Counts what really runs, in gateway, sidecar and worker, and prints each file with its lines.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1]))

from support.up import Up, processes_of

ROOT = Path(__file__).parents[2]
ROOMS = ("core", "gateway", "sidecar", "archiver", "handlers")


class TracedUp:
    """A `marway up` whose processes can be told to write down which files run.

    Args:
        up: It, running.
        into: Where its processes write.
    """

    def __init__(self, up: Up, into: Path) -> None:
        self.up = up
        self._into = into

    def way_of(self, ask: Callable[[], object], *, times: int = 5) -> list[Path]:
        """Return the files that run whenever ``ask`` is called: what runs only now and then is not on its way."""
        ways = [self._way_of(ask) for _ in range(times)]
        return sorted(set.intersection(*ways))

    def _way_of(self, ask: Callable[[], object]) -> set[Path]:
        processes = [process for process in processes_of(self.up.home) if _is_traced(process)]
        for process in processes:
            (self._into / str(process.pid)).unlink(missing_ok=True)
            process.send_signal(signal.SIGUSR1)
        ask()
        for process in processes:
            process.send_signal(signal.SIGUSR2)
        found: set[Path] = set()
        for process in processes:
            written = self._into / str(process.pid)
            deadline = time.monotonic() + 60
            while not written.exists():
                assert time.monotonic() < deadline, process.cmdline()
                time.sleep(0.01)  # for another process, which says nothing
            found |= {Path(line).relative_to(ROOT) for line in written.read_text().splitlines() if _is_ours(line)}
        return found


@contextlib.contextmanager
def traced_up(directory: Path, *arguments: str) -> Iterator[TracedUp]:
    """Start a `marway up` to be traced."""
    into = directory / "traced"
    into.mkdir()
    path = os.pathsep.join(filter(None, (str(Path(__file__).parent / "traced"), os.environ.get("PYTHONPATH"))))
    env = {"PYTHONPATH": path, "MARWAY_TEST_TRACE": str(into)}
    env["MARWAY_RUNTIME_HANDLER_ENVIRONMENT"] = json.dumps([*env])  # workers are traced as well
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


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, traced_up(Path(scratch), "--demo") as traced:
        gateway = traced.up.gateway

        def ask() -> None:
            httpx.post(f"{gateway}/predict/intent", content="wake me at seven", timeout=60).raise_for_status()

        ask()
        ask()
        way = traced.way_of(ask)
        for file in way:
            print(f"{lines_of(file):5d} {file}")
        print(f"{sum(map(lines_of, way)):5d} lines in {len(way)} files")


if __name__ == "__main__":
    main()
