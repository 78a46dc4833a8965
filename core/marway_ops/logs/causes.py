"""Why a version could not be loaded: what its worker lines then, which knows of no request."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from marway_ops.logs.lines import Line

__all__ = ["Causes"]

_LOAD_FAILED: Final = "load_failed"
_LOAD: Final = timedelta(minutes=10)
"""How long before its failure a load may have begun."""
_KEPT: Final = 20


@dataclass(slots=True)
class Causes:
    """What workers wrote last when they could not load a version, by model and version."""

    _lines: dict[tuple[str, str], list[Line]] = field(default_factory=dict)

    def see(self, line: Line) -> None:
        """Look at a line of any component."""
        record = line.record
        if line.component == "worker" and not line.request_ids and (record.get("reason") or record.get("traceback")):
            lines = self._lines.setdefault(_version(line), [])
            lines.append(line)
            del lines[:-_KEPT]

    def of(self, lines: Iterable[Line]) -> list[Line]:
        """Return the cause of each load whose failure ``lines`` tell of: the worker's last reason before it, which has
        the handler's traceback, else its last traceback. Each comes once, the earliest first.
        """
        found: dict[int, Line] = {}
        for line in lines:
            if line.record.get("error") == _LOAD_FAILED or (line.component == "worker" and line.record.get("reason")):
                cause = self._before(_version(line), line.at)
                if cause is not None:
                    found[id(cause)] = cause
        return sorted(found.values(), key=lambda line: line.at)

    def _before(self, version: tuple[str, str], at: datetime) -> Line | None:
        lines = [line for line in self._lines.get(version, ()) if at - _LOAD <= line.at <= at + timedelta(seconds=1)]
        reasons = [line for line in lines if line.record.get("reason")]
        return (reasons or lines or [None])[-1]  # type: ignore[list-item]


def _version(line: Line) -> tuple[str, str]:
    return str(line.record.get("model")), str(line.record.get("version"))
