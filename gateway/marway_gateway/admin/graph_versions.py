"""What the admin routes ask of graphs, which no pod has: the gateway itself does for them what pods do for models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Protocol

from marway.answers.golden import GoldenAnswer
from marway.deadline import Deadline
from marway.errors import MarwayError
from marway.graphs import TABLE_BACKEND
from marway.records import VersionRecord
from marway.resolve.resolved import Resolved
from marway.wire.comparison import Comparison
from marway.wire.pods import LoadReport

__all__ = ["GATEWAY", "GraphVersions", "Part", "of_node"]

GATEWAY: Final = "gateway"
"""What stands where a pod's name does, for what the gateway itself has run."""


@dataclass(frozen=True, slots=True)
class Part:
    """A version that a graph asks, by itself or through graphs in it.

    Attributes:
        node: The node that asks it, `NODE/NODE` in a graph of a graph.
        resolved: Which it is now.
        needed: Whether the graph fails where it does.
    """

    node: str
    resolved: Resolved
    needed: bool

    @property
    def is_table(self) -> bool:
        """Whether it is a table, which gateways read and no pod has."""
        return self.resolved.record.backend == TABLE_BACKEND


class GraphVersions(Protocol):
    """What does for graphs what pods do for models: `marway_gateway.graph.releases.releasing.GraphReleases`."""

    async def parts(self, record: VersionRecord) -> tuple[Part, ...]:
        """Return the versions that a graph's nodes ask now."""

    async def report(self, version: Resolved, *, prove: bool, deadline: Deadline) -> LoadReport:
        """Return what is to be said of a graph whose parts are loaded."""

    async def compare(self, version: Resolved, base: Resolved | None, *, deadline: Deadline) -> Comparison:
        """Return how a version compares with another one, of which one is a graph."""

    async def answer(self, version: Resolved, data: bytes, content_type: str, *, deadline: Deadline) -> GoldenAnswer:
        """Return what a graph answers to a request."""


def of_node(error: MarwayError, node: str) -> MarwayError:
    """Return an error, of the same kind, that says which node of a graph it is about."""
    named = type(error)(
        f"node {node}: {error.message}",
        model=error.model,
        version=error.version,
        retry_after_s=error.retry_after_s,
    )
    named.node = node
    return named
