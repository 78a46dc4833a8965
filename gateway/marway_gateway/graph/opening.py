"""What runs graphs, opened with a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from marway.resolve.reader import RegistryReader
from marway.resolve.resolver import Resolver
from marway_gateway.conversion.converters import Converters
from marway_gateway.graph.documents import Documents
from marway_gateway.graph.graphs import Graphs
from marway_gateway.graph.steps import Means
from marway_gateway.graph.tables.lookups import Lookups
from marway_gateway.graph.tables.tables import Tables
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.settings import GatewaySettings

__all__ = ["RunsGraphs", "running_graphs"]


class RunsGraphs(NamedTuple):
    """What runs graphs: they themselves, their documents, and the tables that they read."""

    graphs: Graphs
    documents: Documents
    tables: Tables


@asynccontextmanager
async def running_graphs(
    settings: GatewaySettings,
    *,
    reader: RegistryReader,
    resolver: Resolver,
    telemetry: Telemetry,
    converters: Converters,
    clock: Callable[[], float],
) -> AsyncIterator[RunsGraphs]:
    """Open it for as long as the context lasts.

    Args:
        settings: The gateway's.
        reader: Reads the registry.
        resolver: Knows which version of a table a node reads now.
        telemetry: Told of each call that a graph makes.
        converters: Read and write large bodies of tensors.
        clock: Monotonic seconds.
    """
    documents = Documents(reader, clock=clock)
    tables = Tables.of(settings, reader.registry, telemetry.metrics)
    means = Means(telemetry, converters.run, settings.max_body_bytes)
    try:
        yield RunsGraphs(Graphs(documents, means, Lookups(resolver, tables)), documents, tables)
    finally:
        await tables.aclose()
        await documents.aclose()
