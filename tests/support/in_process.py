"""The `marway` command in this process: what it prints and its exit code, without the half second of a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from marway_ops.cli.main import main

__all__ = ["Marway", "Said"]


@dataclass(frozen=True)
class Said:
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


class Marway:
    """Runs the command."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Said:
        self._capsys.readouterr()
        self._monkeypatch.setattr("sys.argv", ["marway", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        code: Any = ended.value.code
        return Said(int(code or 0), printed.out, printed.err)
