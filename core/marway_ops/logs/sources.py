"""Where lines come from: the home of a `marway up`, or a cluster through kubectl."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from marway.errors import InvalidInput, Unavailable, clip
from marway.process.growing_file import GrowingFile
from marway.wire import model_log
from marway.wire.runtime import LOGS
from marway_ops.cluster import Kubectl
from marway_ops.cluster.objects import MARWAY
from marway_ops.logs.lines import COMPONENTS, Component, Line, line_of

__all__ = ["ClusterLogs", "HomeLogs"]

_PREFIX: Final = re.compile(r"\[pod/(?P<pod>[^/]+)/(?P<container>[^\]]+)\] ")
_WORDS_MAX: Final = 4096
_STREAMS_MAX: Final = "100"
"""Containers that kubectl follows at once; its own default of 5 is fewer than a small cluster has."""

Names = Mapping[str, tuple[str, str]]
"""Models and versions by the names that model servers know them by."""


class _Source(Protocol):
    def new(self) -> Iterator[Line]:
        """Yield the lines that came since the last call."""

    def close(self) -> None:
        """Close its file."""


class HomeLogs:
    """The logs of a `marway up`.

    Args:
        home: Its home.
        names: Those that are known, for lines that do not say whose they are.

    Raises:
        InvalidInput: Nothing has run there.
    """

    def __init__(self, home: Path, names: Names) -> None:
        self._home = home
        self._names = dict(names)
        self._sources: dict[Path, _Source] = {}
        if not any(self._paths()):
            raise InvalidInput(f"{home} has no logs: give the --home of a `marway up`")

    def new(self) -> Iterator[Line]:
        """Yield the lines that came since the last call, file by file."""
        for path in self._paths():
            if path not in self._sources:
                self._sources[path] = self._source(path)
            yield from self._sources[path].new()

    def close(self) -> None:
        """Close all files."""
        for source in self._sources.values():
            source.close()

    def _paths(self) -> Iterator[Path]:
        yield from sorted((self._home / "logs").glob("*.log"))
        for pod in sorted((self._home / "pods").glob("*")):
            if (pod / LOGS).is_dir():
                yield pod / LOGS / model_log.FILE

    def _source(self, path: Path) -> _Source:
        if path.name == model_log.FILE:
            return _OfWorkers(path, path.parents[1].name, self._names)
        component, _, process = path.stem.partition("-")
        known: Component = next((each for each in COMPONENTS if each == component), "runtime")  # a server's own
        return _OfProcess(path, known, process or component)


class _OfProcess:
    """What a process writes to its stdout. A runtime's has workers' lines too, which come from their own file."""

    def __init__(self, path: Path, component: Component, process: str) -> None:
        self._file = GrowingFile(path, whole=True)
        self._component = component
        self._process = process
        self._last: datetime | None = None
        self.close = self._file.close

    def new(self) -> Iterator[Line]:
        for text in self._file.lines():
            if text.strip():
                line = line_of(text, self._component, self._process, self._last)
                self._last = line.at
                if line.component == self._component:
                    yield line


class _OfWorkers:
    """What handlers wrote, from the file that has it first; that before it, where there is one, is read once."""

    def __init__(self, path: Path, pod: str, names: dict[str, tuple[str, str]]) -> None:
        self._before: Path | None = path.with_name(model_log.BEFORE)
        self._file = GrowingFile(path, whole=True)
        self._pod = pod
        self._names = names
        self.close = self._file.close

    def new(self) -> Iterator[Line]:
        before, self._before = self._before, None
        if before is not None and before.exists():
            with before.open(encoding="utf-8", errors="replace", newline="\n") as file:
                yield from self._lines(file)
        yield from self._lines(self._file.lines())

    def _lines(self, texts: Iterator[str]) -> Iterator[Line]:
        for line in model_log.parse(texts):
            if line.model is not None and line.version is not None:
                self._names.setdefault(line.worker, (line.model, line.version))
            record = line.record()
            if line.model is None:
                record["model"], record["version"] = self._names.get(line.worker, (line.worker, None))
            yield Line(line.at, "worker", self._pod, record)


class ClusterLogs:
    """The logs of all containers of Marway in a cluster.

    Args:
        kubectl: Reads them.
        since: From when on; None for all that the nodes keep.
    """

    def __init__(self, kubectl: Kubectl, since: datetime | None) -> None:
        since_time = [] if since is None else [f"--since-time={since.isoformat()}"]
        common = ("--selector", MARWAY, "--all-containers", "--prefix", f"--max-log-requests={_STREAMS_MAX}")
        self._command = kubectl.command("logs", *common, *since_time)

    def new(self) -> Iterator[Line]:
        """Yield all lines that there are.

        Raises:
            Unavailable: kubectl cannot read them; the message has its own words.
        """
        with self._running("--tail=-1") as process:
            yield from self._lines(process)

    def close(self) -> None:
        """Nothing is open between calls."""

    def follow(self) -> Iterator[Line]:
        """Yield lines as they come, from now on, for ever.

        Raises:
            Unavailable: kubectl cannot read them, or ended.
        """
        with self._running("--follow", "--tail=0") as process:
            yield from self._lines(process)

    @contextmanager
    def _running(self, *more: str) -> Iterator[subprocess.Popen[str]]:
        with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads meanwhile would stop it when it is full
            try:
                process = subprocess.Popen(
                    [*self._command, *more], stdout=subprocess.PIPE, stderr=errors, text=True, errors="replace"
                )
            except OSError as exc:
                raise Unavailable(f"kubectl does not run: {exc}") from exc
            with process:
                try:
                    yield process
                    if process.wait() != 0:
                        errors.seek(0)
                        words = errors.read(_WORDS_MAX).decode(errors="replace").strip()
                        raise Unavailable(f"kubectl cannot read the logs: {clip(words, 300)}")
                finally:
                    process.kill()

    def _lines(self, process: subprocess.Popen[str]) -> Iterator[Line]:
        last: dict[str, datetime] = {}
        assert process.stdout is not None
        for text in process.stdout:
            found = _PREFIX.match(text)
            if found is None:
                continue
            container = found["container"]
            component: Component = next((each for each in COMPONENTS if each in container), "runtime")
            line = line_of(text[found.end() :].rstrip("\n"), component, found["pod"], last.get(found[0]))
            last[found[0]] = line.at
            yield line
