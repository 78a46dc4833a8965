"""What `marway up` shows: lines for a person, or JSON lines for a program."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from marway.text import printable
from marway_ops.shell.output import console, warn

__all__ = ["JsonView", "TerminalView", "View"]

_LOADING_S = 0.5
"""A first prediction that takes longer had to wait for its model."""


class TerminalView:
    """One line a step, with its time; a spinner while it runs, on a terminal."""

    def __init__(self) -> None:
        self._console = console()
        self._console.soft_wrap = True  # a terminal breaks these lines itself, so that a URL can be copied whole

    def begin(self, home: Path) -> None:
        self._console.print(Text.assemble(("marway up", "bold"), f"  home {home}"))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        with self._console.status(Text(f"{name} …")) if self._console.is_terminal else contextlib.nullcontext():
            yield
        self.done(name, time.monotonic() - started)

    def output(self, line: str) -> None:
        self._console.print(Text(printable(f"    {line}"), style="dim"))

    def warned(self, text: str) -> None:
        warn(text)

    def done(self, name: str, seconds: float | None = None, detail: str = "") -> None:
        took = f"{seconds:5.1f} s" if seconds is not None else "       "
        self._console.print(Text.assemble(("  ✓ ", "green"), f"{took}  {name}", (printable(f"  {detail}"), "dim")))

    def ready(self, document: dict[str, Any]) -> None:
        pods = "  ".join(f"{pod['name']} {pod['url']} ({pod['engine']})" for pod in document["pods"])
        self._console.print()
        self._console.print(Text.assemble(("  ready", "bold green"), f"    {document['gateway']}  (API: /docs)"))
        self._console.print(Text(f"  console  {document['admin']}/  (in a browser; the admin port)"))
        self._console.print(Text(f"  gRPC     {document['grpc']}"))
        self._console.print(Text(f"  pods     {pods}"))
        self._console.print(Text(f"  registry {document['registry']}"))

    def prediction(self, url: str, sent: str, answer: str, seconds: float) -> None:
        quoted = "'" + sent.replace("'", "'\\''") + "'"
        self._console.print()
        self._console.print(Text.assemble(("  $ ", "dim"), (f"curl -d {quoted} {url}", "bold")))
        self._console.print(Text(printable(f"  {answer}")))
        loads = "; the first one loads the model" if seconds >= _LOADING_S else ""
        self._console.print(Text(f"  ({seconds:.2f} s{loads})", style="dim"))
        self._console.print()
        self._console.print(Text("  serving; Ctrl-C stops everything"))

    def stopping(self) -> None:
        self._console.print()
        self._console.print(Text("  stopping: requests in flight may finish (Ctrl-C again ends them)"))

    def stopped(self, seconds: float) -> None:
        self.done("stopped", seconds)


class JsonView:
    """JSON lines on stdout, each with an `event`."""

    def _emit(self, event: str, **facts: Any) -> None:
        sys.stdout.write(json.dumps({"event": event, **facts}) + "\n")
        sys.stdout.flush()

    def begin(self, home: Path) -> None:
        """It begins, in this home."""
        self._emit("begin", home=str(home))

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Something that takes a while; ends with its time."""
        started = time.monotonic()
        yield
        self.done(name, time.monotonic() - started)

    def output(self, line: str) -> None:
        """A line of a program that is being run, such as a training script."""
        self._emit("output", line=line)

    def warned(self, text: str) -> None:
        """A person should know of this, such as a part that died and is started again."""
        self._emit("warning", message=text)

    def done(self, name: str, seconds: float | None = None, detail: str = "") -> None:
        self._emit("step", name=name, seconds=seconds, detail=detail)

    def ready(self, document: dict[str, Any]) -> None:
        self._emit(**document)

    def prediction(self, url: str, sent: str, answer: str, seconds: float) -> None:
        self._emit("prediction", url=url, sent=sent, answer=answer, seconds=seconds)

    def stopping(self) -> None:
        self._emit("stopping")

    def stopped(self, seconds: float) -> None:
        self._emit("stopped", seconds=seconds)


View = TerminalView | JsonView
"""Told what happens, in order."""
