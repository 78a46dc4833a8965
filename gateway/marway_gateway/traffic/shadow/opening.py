"""What copies need, opened together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

from marway.objects import ObjectStore
from marway_gateway.conversion.converters import Converters
from marway_gateway.observe.telemetry import Telemetry
from marway_gateway.placement import PodSet
from marway_gateway.tasks import TaskSet
from marway_gateway.traffic.shadow.copies import ShadowCopies
from marway_gateway.traffic.shadow.counting import ShadowBook
from marway_gateway.traffic.shadow.judging import CopyJudge, TallyOf
from marway_gateway.traffic.shadow.sending import CopySender, SendsCopies
from marway_gateway.transport import Upstream

__all__ = ["copying"]


@asynccontextmanager
async def copying(
    store: ObjectStore,
    *,
    pods: PodSet,
    transport: Upstream,
    algorithm_pools: Mapping[str, str],
    graphs: SendsCopies,
    telemetry: Telemetry,
    tally: TallyOf,
    busy: Callable[[], bool],
) -> AsyncIterator[ShadowCopies]:
    """Give what makes copies, for as long as the context lasts; what was counted is kept in ``store``."""
    tasks = TaskSet()
    book, converters = ShadowBook(store), Converters(1)
    judge = CopyJudge(book, tally, telemetry, converters)
    copies = ShadowCopies(CopySender(pods, transport, algorithm_pools, graphs), judge, telemetry, busy=busy)
    tasks.start("shadow-counts", book.keep)
    try:
        yield copies
    finally:
        await copies.aclose()
        await tasks.aclose()
        await book.write()
        await converters.aclose()
