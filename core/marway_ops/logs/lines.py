"""One line of a log of any component, and which lines are wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Final, Literal, get_args

from marway.telemetry import record_in

__all__ = ["COMPONENTS", "LEVELS", "Component", "Line", "Wanted", "line_of"]

Component = Literal["gateway", "sidecar", "runtime", "worker"]
COMPONENTS: Final[tuple[Component, ...]] = get_args(Component)
LEVELS: Final = ("debug", "info", "warning", "error", "critical")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a log.

    Attributes:
        at: When it was written.
        component: Who wrote it.
        process: Whose pod or process that is.
        record: What it says, with the names that all of Marway's logs have.
    """

    at: datetime
    component: Component
    process: str
    record: Mapping[str, Any]

    @property
    def request_ids(self) -> tuple[str, ...]:
        """The requests that it is about."""
        several = self.record.get("request_ids")
        ids = several if isinstance(several, list) else [self.record.get("request_id")]
        return tuple(each for each in ids if isinstance(each, str))

    def is_about(self, request_id: str) -> bool:
        """Return whether it is about a request, or about one of the rows that it brought: `ID/0` and so on."""
        return any(each == request_id or each.startswith(f"{request_id}/") for each in self.request_ids)

    @property
    def is_access(self) -> bool:
        """Whether it is the gateway's of a request that went well: as many of these there are as requests."""
        return self.record.get("logger") == "marway_gateway.access" and self.record.get("outcome") == "ok"

    def document(self) -> dict[str, Any]:
        """Return it as one record, which says whose it is."""
        whose = {"component": self.component}
        return {**self.record, **(whose if self.component == "gateway" else {**whose, "pod": self.process})}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines are wanted.

    Attributes:
        request: Of this request alone.
        versions: Of these versions alone, as pairs of model and version; None for all.
        components: Of these alone.
        level: From this level on.
        since, until: Written between these times.
    """

    request: str | None = None
    versions: frozenset[tuple[str, str]] | None = None
    components: frozenset[Component] = frozenset(COMPONENTS)
    level: str = "debug"
    since: datetime = _EPOCH
    until: datetime | None = None

    def may_explain(self, line: Line) -> bool:
        """Return whether a line may come along that is about no request, nor of a level that was asked for."""
        in_time = self.since <= line.at and (self.until is None or line.at <= self.until)
        return in_time and line.component in self.components

    def has(self, line: Line) -> bool:
        """Return whether a line is wanted.

        The gateway's lines of requests that went well are where a request, or the gateway alone, was asked for: there
        are as many as requests, and among them nobody would find what a handler says.
        """
        if not self.may_explain(line):
            return False
        record = line.record
        if _rank(record.get("level")) < _rank(self.level):
            return False
        if self.versions is not None and (record.get("model"), record.get("version")) not in self.versions:
            return False
        if self.request is not None:
            return line.is_about(self.request)
        return not line.is_access or self.components == {"gateway"}


def line_of(text: str, component: Component, process: str, before: datetime | None) -> Line:
    """Return a line of a process's stdout: a record, or what something else printed there.

    Args:
        text: The line.
        component: Whose process it is; a line of a runtime's worker is the worker's.
        process: Its name.
        before: When the line before it was written, which stands for the time of one without.
    """
    record = record_in(text)
    if record is not None:
        try:
            at = datetime.fromisoformat(record["time"])
        except ValueError:
            record = None
        else:
            at = at if at.tzinfo is not None else at.replace(tzinfo=timezone.utc)
            of_worker = component == "runtime" and ("worker" in record or "server_name" in record)
            return Line(at, "worker" if of_worker else component, process, record)
    at = before or _EPOCH
    return Line(at, component, process, {"time": at.isoformat(), "level": "error", "message": text})


def _rank(level: object) -> int:
    return LEVELS.index(level) if isinstance(level, str) and level in LEVELS else 1
