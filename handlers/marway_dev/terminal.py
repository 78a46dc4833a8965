"""What `marway dev` says: lines for people, or a JSON object a line for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

import typer
from rich.text import Text

from marway.answers.golden import GoldenAnswer
from marway.errors import clip
from marway.text import printable, printable_json
from marway_archiver.cli.output import human_bytes
from marway_ops.shell.output import console

__all__ = ["Answered", "Terminal"]

_STYLES: Final = {"error": "red", "critical": "red", "warning": "yellow"}
_VALUE_CHARS: Final = 300


class Answered:
    """What an example was answered with.

    Args:
        line: The input as one short line.
        answer: What came.
        seconds: How long it took from here to the worker and back.
        pieces: In how many pieces it came.
        compared: `first`, `same`, or how the answer differs from the one before.
    """

    def __init__(self, line: str, answer: GoldenAnswer, seconds: float, pieces: int, compared: str) -> None:
        self.line, self.answer, self.seconds, self.pieces, self.compared = line, answer, seconds, pieces, compared

    @property
    def ok(self) -> bool:
        """Whether the handler answered, with a status below 400."""
        return self.answer.kind != "error" and self.answer.status < 400

    def document(self) -> dict[str, Any]:
        """Return it as `--json` shows it."""
        return {
            "input": self.line,
            "status": self.answer.status,
            "kind": self.answer.kind,
            "content_type": self.answer.content_type,
            "value": self.answer.value,
            "duration_s": round(self.seconds, 6),
            "pieces": self.pieces,
            "compared": self.compared,
        }


class Terminal:
    """Prints events as they come.

    Args:
        as_json: Whether each is a JSON object a line.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = console()
        self._trace: str | None = None

    def ready(self, url: str, name: str) -> None:
        """Say where the handler is served."""
        self._say({"event": "ready", "url": url, "model": name}, f"serving on {url}/predict/{name}  (Ctrl-C ends)")

    def changed(self, files: Sequence[str]) -> None:
        """Say what was saved."""
        self._trace = None
        self._say({"event": "changed", "files": list(files)}, f"\n{', '.join(files)} changed", "cyan")

    def loaded(self, what: str, seconds: float, memory_bytes: int, warnings: Sequence[str]) -> None:
        """Say that the handler is loaded, how long that took and what its worker holds in memory."""
        document = {
            "event": "loaded", "load_s": round(seconds, 3), "memory_bytes": memory_bytes, "warnings": list(warnings),
        }  # fmt: skip
        self._say(document, f"loaded {what} in {seconds:.2f} s, {human_bytes(memory_bytes)}", "green")
        if not self._as_json:
            for warning in warnings:
                self._print(f"warning: {warning}", "yellow")

    def failed(self, reason: str) -> None:
        """Say why the handler is not loaded."""
        self._say({"event": "failed", "reason": reason}, f"not loaded: {reason}", "red")

    def answered(self, number: int, answered: Answered) -> None:
        """Say what an example was answered with."""
        if self._as_json:
            self._say({"event": "answer", "example": number, **answered.document()}, "")
            return
        answer = answered.answer
        pieces = f" in {answered.pieces} pieces" if answered.pieces > 1 else ""
        self._print(f"{number:3}  {answered.line}", "bold")
        shown = answer.value if isinstance(answer.value, str) else json.dumps(answer.value, ensure_ascii=False)
        style = "" if answered.ok else "red"
        value = clip(" ".join(shown.split()), _VALUE_CHARS)
        self._print(f"     {answer.status}  {value}  {answered.seconds * 1000:.1f} ms{pieces}", style)
        if answered.compared not in ("first", "same"):
            self._print(f"     differs from before: {answered.compared}", "yellow")
        elif answered.compared == "same":
            self._print("     same as before", "dim")

    def log(self, level: str, text: str, trace: str | None) -> None:
        """Show what the handler printed, logged or raised."""
        if self._as_json:
            self._say({"event": "log", "level": level, "message": text, "traceback": trace}, "")
            return
        if trace is not None and trace == self._trace:
            trace = "(the same traceback as above)"
        else:
            self._trace = trace or self._trace
        for line in [*text.splitlines(), *(trace or "").splitlines()]:
            self._print(f"   | {line}", _STYLES.get(level, "dim"))

    def _say(self, document: dict[str, Any], text: str, style: str = "") -> None:
        if self._as_json:
            typer.echo(printable_json(json.dumps(document, ensure_ascii=False)))
        else:
            self._print(text, style)

    def _print(self, text: str, style: str = "") -> None:
        self._console.print(Text(printable(text), style=style), soft_wrap=True)
