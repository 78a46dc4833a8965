"""What runs graphs in a gateway, opened together."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from marway.resolve.reader import RegistryReader
from marway.resolve.resolver import Resolver
from marway_gateway.conversion.converters import Converters
from marway_gateway.graph.documents import Documents
from marway_gateway.graph.graphs import Graphs
from marway_gateway.graph.releases.asker import Asks
from marway_gateway.graph.releases.copies import GraphCopies
from marway_gateway.graph.releases.parts import Parts
from marway_gateway.graph.releases.releasing import GraphReleases
from marway_gateway.graph.steps import Means
from marway_gateway.graph.tables.lookups import Lookups
from marway_gateway.graph.tables.tables import Tables
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.settings import GatewaySettings

__all__ = ["OpenGraphs", "opened_graphs"]


class OpenGraphs(NamedTuple):
    """What answers calls of graphs, what releases graphs, and what sends them copies."""

    graphs: Graphs
    releases: GraphReleases
    copies: GraphCopies


@asynccontextmanager
async def opened_graphs(
    settings: GatewaySettings,
    reader: RegistryReader,
    resolver: Resolver,
    telemetry: Telemetry,
    converters: Converters,
    predictor: Callable[[], Asks],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[OpenGraphs]:
    """Give them for as long as the context lasts.

    Args:
        settings: Where tables are kept, and how large bodies may be.
        reader: Reads the registry.
        resolver: Knows which versions nodes ask now.
        telemetry: Told of each call that a graph makes.
        converters: Read and write large bodies.
        predictor: Gives what makes predict calls; asked when one is made.
        clock: Monotonic seconds.
    """
    async with AsyncExitStack() as stack:
        documents = Documents(reader, clock=clock)
        stack.push_async_callback(documents.aclose)
        tables = Tables.of(settings, reader.registry, telemetry.metrics)
        stack.push_async_callback(tables.aclose)
        means = Means(telemetry, converters.run, settings.max_body_bytes)
        yield OpenGraphs(
            Graphs(documents, means, Lookups(resolver, tables)),
            GraphReleases(predictor, Parts(documents, resolver), reader, tables),
            GraphCopies(predictor),
        )
