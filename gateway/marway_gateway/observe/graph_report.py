"""What becomes of a graph's nodes: span in the answer's headers, and counted."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import Histogram

from marway.deadline import Deadline

__all__ = ["EARLY_S", "GraphReport", "NodeOutcome", "Step"]

NodeOutcome = Literal["ok", "failed", "fallback", "cancelled", "client_error", "model_error", "timeout", "unavailable"]
"""`failed` is a node that failed and need not answer; `fallback` one in whose place something else answered."""

EARLY_S: Final = 0.005
"""How long before a deadline its timer may go off: loops count in milliseconds."""
_ENTRIES_MAX: Final = 64
"""Most nodes that an answer's headers tell of: all of a graph, and of graphs within it as many as are left."""


class GraphReport:
    """What became of the nodes of one call of a graph, and of the graphs within it.

    Args:
        durations: Counts what nodes take, by the graph, its node and what became of it.
        deadline: When its answer must be there.
        span: Called with path, seconds and outcome of each node that asks no version, which would have its own span.
    """

    def __init__(
        self, durations: Histogram, deadline: Deadline, span: Callable[[str, float, str], None] | None = None
    ) -> None:
        self._deadline = deadline
        self._durations = durations
        self._span = span
        self._took: dict[str, float] = {}
        self._asked: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self._late: dict[str, None] = {}

    def asked(self, node: str, version: str) -> None:
        """Take in which version a node asks."""
        self._asked[node] = version

    def cancelled(self, node: str) -> None:
        """Take in that a node is ended while it waits for an answer."""
        if self._deadline.left_s() < EARLY_S:
            self._late[node] = None

    def took(self, node: str, seconds: float, outcome: NodeOutcome, *, graph: tuple[str, str], name: str) -> None:
        """Take in what became of a node.

        Args:
            node: Its path, from the graph that was called.
            seconds: How long it took, tries and fallback together; of many rows the slowest counts.
            outcome: How it ended.
            graph: Name and version of the graph that it is a node of.
            name: What it is called there.
        """
        self._durations.labels(*graph, name, outcome).observe(seconds)
        if self._span is not None and node not in self._asked:
            self._span(node, seconds, outcome)
        if outcome in ("failed", "fallback"):
            self._notes[node] = outcome
        if node in self._took or len(self._took) < _ENTRIES_MAX:
            self._took[node] = max(seconds, self._took.get(node, 0.0))

    @property
    def late(self) -> Collection[str]:
        """The nodes that had not answered when the deadline passed."""
        return self._late

    def timings(self) -> str:
        """Return the entries of `Server-Timing` (W3C), milliseconds, in the order in which nodes ended."""
        return ", ".join(
            f"node-{node.replace('/', '.')};dur={seconds * 1000:.3f}"
            + (f';desc="{self._asked[node]}"' if node in self._asked else "")
            for node, seconds in self._took.items()
        )

    def notes(self) -> str:
        """Return what `X-Marway-Graph` says; empty where nothing failed."""
        return ", ".join(f"{node}={outcome}" for node, outcome in list(self._notes.items())[:_ENTRIES_MAX])


@dataclass(frozen=True, slots=True)
class Step:
    """Where a call stands that a graph makes.

    Attributes:
        depth: How many graphs it is within.
        node: The node that makes it, by its path from the graph that was called.
        report: That graph's.
    """

    depth: int
    node: str
    report: GraphReport
