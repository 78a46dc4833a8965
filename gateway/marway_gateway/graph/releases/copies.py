"""Copies of requests for a graph: run through the pipeline, every node's request in moments that nobody else needs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidInput, MarwayError, ModelError, NoRoomToSpare, Unavailable
from marway.resolve.resolved import Resolved
from marway.wire.headers import PRIORITY
from marway.wire.request import read_ids
from marway_gateway.graph.releases.asker import Asks
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.call import PredictCall
from marway_gateway.traffic.shadow.sending import Came, Dropped

__all__ = ["GraphCopies"]

_ANSWER_BYTES_MAX = 16 * 1024 * 1024


class GraphCopies:
    """Sends copies of requests to graphs.

    Args:
        predictor: Gives what makes predict calls.
    """

    def __init__(self, predictor: Callable[[], Asks]) -> None:
        self._predictor = predictor

    async def send(
        self, version: Resolved, headers: Mapping[str, str], body: bytes, *, within_s: float
    ) -> Came | Dropped:
        """Return what a graph made of a request, or why it was not asked or is not known."""
        record = version.record
        info = RequestInfo(method="POST", path="", ids=read_ids(headers.get))
        info.role, info.metadata = "shadow", headers
        call = PredictCall(
            name=record.name,
            selector=record.version,
            headers={**headers, PRIORITY: "shadow"},
            deadline=Deadline.after(within_s),
            info=info,
            body=RequestBody.opened(body, max_bytes=len(body)),
            fresh=True,
            resolved=version,
            divides=False,
        )
        predictor, began = self._predictor(), time.perf_counter()
        try:
            with predictor.scope(call):
                answer = await predictor.predict(call)
                reply, data = answer.reply, answer.reply.data
                if data is None:  # its pieces are no answer that could be compared; that they come is
                    await answer.whole(max_bytes=_ANSWER_BYTES_MAX, too_large="the answer is too large")
        except ModelError as exc:
            return Came(None, time.perf_counter() - began, exc.status, None, None, info.run, exc)
        except MarwayError as exc:
            return Dropped(_reason(exc))
        return Came(None, time.perf_counter() - began, reply.status, reply, data, info.run or reply.run)


def _reason(error: MarwayError) -> str:
    match error:
        case NoRoomToSpare():
            return "no_room"
        case DeadlineExceeded():
            return "late"
        case Unavailable():
            return "not_ready"
        case InvalidInput():
            return "refused"
    return "lost"
