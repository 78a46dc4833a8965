"""A handler running in a process of its own: started in an empty directory, bounded in time, and gone afterwards.

The caller's process never imports the handler. The process sees what computing needs and no secrets; its home and its
temporary directory lie in one directory that is removed with it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import platform
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from marway.answers.golden import ExampleInput, GoldenAnswer, Kind
from marway.archives.entries import MANIFEST_NAME, Entry
from marway.errors import InvalidArchive, LoadFailed, clip
from marway.process.die_with_parent import dies_with_me
from marway.wire.envelope import RAW_BODY, Part, Row, decode_answers, encode_rows
from marway.wire.headers import JSON_NONFINITE
from marway.worker.environment import handler_environment
from marway_archiver.atomic_output import signals_raise
from marway_archiver.contents.manifest import Manifest, encode_manifest

__all__ = ["Called", "HandlerProcess", "has_torchserve", "start_handler", "unpack"]

_MAX_REPLY_BYTES = 1024 * 1024 * 1024
_LAST_LINES = 5


class Called(NamedTuple):
    """What one call gave: an answer a row, the time inside the handler in seconds, and how many pieces came before."""

    answers: tuple[GoldenAnswer, ...]
    seconds: float
    pieces: int


def has_torchserve() -> bool:
    """Return whether TorchServe's worker code and torch can be imported here."""
    return all(find_spec(name) is not None for name in ("ts", "torch"))


class HandlerProcess:
    """A handler that was started; `start_handler` makes one, and gives it when it is loaded.

    Attributes:
        versions: Of `torchserve`, `torch` and `python`.
        load_s: Seconds from starting the process to a loaded handler.
    """

    def __init__(
        self, process: subprocess.Popen[bytes], connection: socket.socket, replies: BinaryIO, log: Path
    ) -> None:
        self._process, self._connection, self._replies, self._log = process, connection, replies, log
        self._call_timeout_s = 0.0
        self.load_s = 0.0
        self.versions: Mapping[str, str] = {}

    def wait_until_loaded(self, timeout_s: float, *, call_timeout_s: float) -> None:
        """Return when the handler is loaded; each call may take ``call_timeout_s`` then.

        Raises:
            LoadFailed: It cannot be, its process died, or it took longer than ``timeout_s``.
        """
        started = time.monotonic()
        reply = self._receive("loading the handler", timeout_s)
        self.load_s = time.monotonic() - started
        if "failed" in reply:
            raise LoadFailed(f"the handler does not load: {clip(str(reply['failed']), 1000)}")
        self.versions = {**reply["loaded"], "python": platform.python_version()}
        self._call_timeout_s = call_timeout_s

    def call(self, rows: Sequence[int]) -> Called:
        """Call the handler once with the inputs of these indices, which may repeat.

        Raises:
            LoadFailed: The process died, or did not answer in time.
        """
        with contextlib.suppress(OSError):  # it is gone: what it said last is read below
            self._connection.sendall(json.dumps({"rows": list(rows)}).encode() + b"\n")
        reply = self._receive(f"a call with {len(rows)} {'row' if len(rows) == 1 else 'rows'}", self._call_timeout_s)
        answers = tuple(
            GoldenAnswer.of(
                status=each.status, kind=cast("Kind", each.kind), content_type=each.content_type, body=each.body
            )
            for each in decode_answers(base64.b64decode(reply["answers"]))
        )
        return Called(answers, float(reply["seconds"]), int(reply["pieces"]))

    def _receive(self, what: str, timeout_s: float) -> Any:
        self._connection.settimeout(timeout_s)
        try:
            line = self._replies.readline(_MAX_REPLY_BYTES)
        except TimeoutError as exc:
            raise LoadFailed(
                f"{what} took longer than {timeout_s:g} s: give more time, or see what it waits for{self._last_words()}"
            ) from exc
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
            status = self._process.returncode
            how = f"signal {-status}" if status is not None and status < 0 else f"status {status}"
            raise LoadFailed(f"{what} ended the handler's process ({how}){self._last_words()}")
        return json.loads(line)

    def _last_words(self) -> str:
        lines = [line.strip() for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        return f"; it said last: {clip(' / '.join(lines[-_LAST_LINES:]), 800)}" if lines else ""


@contextmanager
def start_handler(
    manifest: Manifest,
    entries: Iterable[Entry],
    inputs: Sequence[ExampleInput],
    *,
    load_timeout_s: float,
    call_timeout_s: float,
) -> Iterator[HandlerProcess]:
    """Unpack an archive's files into a directory of their own and load the handler there, in a process of its own.

    `HandlerProcess.call` names ``inputs`` by their index. Loading, and each call, must end in time.

    Raises:
        InvalidArchive: It holds no Python handler.
        LoadFailed: The handler does not load.
        ModuleNotFoundError: TorchServe is not installed.
    """
    if not has_torchserve():
        raise ModuleNotFoundError("No module named 'ts'", name="ts")
    if manifest.runtime == "LSP":
        raise InvalidArchive("golden examples need a Python handler: runtime LSP is TorchServe's C++ backend")
    with signals_raise(), tempfile.TemporaryDirectory(prefix="marway-golden-", ignore_cleanup_errors=True) as name:
        home = Path(name).resolve()
        model, scratch, log = home / "model", home / "tmp", home / "output.log"
        scratch.mkdir()
        unpack(model, manifest, entries)
        job = _write_job(home, model, manifest, inputs)
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rb") as replies, theirs, log.open("wb") as output:
            script = Path(__file__).with_name("handler_child.py")
            process = subprocess.Popen(
                dies_with_me([sys.executable, "-u", "-B", str(script), str(theirs.fileno()), str(job)]),
                cwd=model,
                env=_environment(model, scratch),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
            try:
                theirs.close()  # so that its end is seen
                handler = HandlerProcess(process, ours, replies, log)
                handler.wait_until_loaded(load_timeout_s, call_timeout_s=call_timeout_s)
                yield handler
            finally:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(process.pid, signal.SIGKILL)  # the handler's own children as well
                process.wait()


def unpack(directory: Path, manifest: Manifest, entries: Iterable[Entry]) -> None:
    """Write an archive's manifest and other files below ``directory``."""
    (directory / MANIFEST_NAME).parent.mkdir(parents=True)
    (directory / MANIFEST_NAME).write_bytes(encode_manifest(manifest))
    for entry in entries:
        path = directory / entry.name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            file.writelines(entry.chunks())


def _write_job(home: Path, model: Path, manifest: Manifest, inputs: Sequence[ExampleInput]) -> Path:
    rows, job = home / "rows", home / "job.json"
    rows.write_bytes(encode_rows([_row(each) for each in inputs]))
    facts = {
        "model_name": manifest.model.model_name,
        "model_dir": str(model),
        "handler": manifest.model.handler,
        "rows": str(rows),
    }
    job.write_text(json.dumps(facts), encoding="utf-8")
    return job


def _row(given: ExampleInput) -> Row:
    headers = {JSON_NONFINITE: "allow"}  # compared as it is
    if given.content_type is not None:
        headers["content-type"] = given.content_type
    return Row("", [Part(RAW_BODY, given.data, given.content_type)], headers)


def _environment(model: Path, scratch: Path) -> dict[str, str]:
    """Return what a worker has, with a home of its own and the model's directory first on Python's path."""
    environment = handler_environment(scratch) | {"HOME": str(scratch)}
    paths = [str(Path(path).absolute()) for path in environment.get("PYTHONPATH", "").split(os.pathsep) if path]
    return environment | {"PYTHONPATH": os.pathsep.join([str(model), *paths])}
