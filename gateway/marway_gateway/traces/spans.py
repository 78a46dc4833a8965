"""Spans of predictions: one for each, within it those of the times it waited here and of each pod asked.

`Telemetry` begins and ends the first, `TracedUpstream` takes the place of `Upstream`: while traces are off neither is
there, and nothing of this runs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlsplit

from opentelemetry.trace import Span, Status, StatusCode

from marway.deadline import Deadline
from marway.redaction import redaction_of
from marway.wire import headers as wire
from marway.wire.headers import Outcome
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.transport import Upstream
from marway_gateway.transport.client import Pod
from marway_gateway.transport.reply import Reply
from marway_http.traces import Traces, fail, sampled, wall_clock

__all__ = ["RequestTraces", "TracedUpstream"]

_CALLERS: Final = frozenset({"ok", "client_error", "cancelled"})
"""Outcomes that are no failure of the server: OpenTelemetry leaves the status of such a span unset."""


class RequestTraces:
    """Begins and ends the spans of predictions.

    Args:
        traces: Begins spans.
    """

    def __init__(self, traces: Traces) -> None:
        self._traces = traces

    def begin(self, info: RequestInfo) -> None:
        """Begin a prediction's span: from now on pods and handlers are told of it as their parent."""
        node = info.node
        span = info.span = self._traces.begin(
            "predict" if node is None else f"node {node}",
            info.ids,
            kind="SERVER" if node is None else "INTERNAL",
            at=wall_clock(info.started),
        )
        info.ids = self._traces.within(info.ids, span)

    def end(self, info: RequestInfo) -> None:
        """Say what is known of a prediction at its end, and end its span."""
        span = info.span
        assert isinstance(span, Span)
        if span.is_recording():
            if info.node is None and info.model is not None:
                span.update_name(f"predict {info.model}")  # which is one of the registry's, so there are few
            attributes = {key: value for key, value in _attributes(info).items() if value is not None}
            span.set_attributes(attributes)
            if info.outcome not in _CALLERS:
                span.set_status(Status(StatusCode.ERROR, info.error or info.outcome))
            for began, ended in info.waits:
                self._traces.past("queue", span, wall_clock(began), wall_clock(ended))
        span.end()

    def node(self, info: RequestInfo, node: str, seconds: float, outcome: str) -> None:
        """Tell of a node of a graph that ended now, within the graph's own span."""
        span = info.span
        assert isinstance(span, Span)
        now = time.time()
        about = {"marway.node": node, "marway.outcome": outcome}
        self._traces.past(f"node {node.rpartition('/')[2]}", span, now - seconds, now, about)


def _attributes(info: RequestInfo) -> dict[str, str | int | float | None]:
    """Return a prediction's attributes, by OpenTelemetry's conventions where they have a name for it."""
    status = info.status
    attributes: dict[str, str | int | float | None] = {
        "http.request.method": info.method if isinstance(status, int) else None,
        "http.response.status_code": status if isinstance(status, int) else None,
        "rpc.response.status_code": status if isinstance(status, str) else None,
        "url.path": info.path if isinstance(status, int) and info.node is None else None,
        "error.type": info.error if info.outcome != "ok" else None,
        "marway.surface": info.surface,
        "marway.model": info.model,
        "marway.version": info.version,
        "marway.label": info.label,
        "marway.outcome": info.outcome,
        "marway.request_id": info.request_id,
        "marway.group_id": info.group_id,
        "marway.prediction_id": info.prediction_id,
        "marway.node": info.node,
        "marway.cache": info.cache,
        "marway.role": info.role if info.assignment is not None else None,
        "marway.fallback": info.fallback,
        "marway.attempts": info.attempts,
        "marway.resolve_ms": None if info.resolve_s is None else round(info.resolve_s * 1000, 3),
        "marway.request_bytes": info.request_bytes,
        "marway.response_bytes": info.response_bytes,
    }
    if info.serving is not None and info.serving.observe_redact:
        hidden = redaction_of(info.serving.observe_redact).headers
        for header, name in ((wire.REQUEST_ID, "marway.request_id"), (wire.REQUEST_GROUP_ID, "marway.group_id")):
            if header in hidden:
                attributes[name] = None
    return attributes


class TracedUpstream(Upstream):
    """Tells of each pod that is asked, and tells the pod.

    Args:
        traces: Begins spans.
        connect_timeout_s, buffered_bytes: `Upstream`'s.
    """

    def __init__(self, traces: Traces, *, connect_timeout_s: float, buffered_bytes: int) -> None:
        super().__init__(connect_timeout_s=connect_timeout_s, buffered_bytes=buffered_bytes)
        self._traces = traces

    async def predict(
        self, pod: Pod, name: str, version: str, *, headers: Mapping[str, str], body: RequestBody, deadline: Deadline
    ) -> Reply:
        if not sampled(headers):  # nor is the prediction's own span kept, which the pod is told of
            return await super().predict(pod, name, version, headers=headers, body=body, deadline=deadline)
        address = urlsplit(pod.url)
        span = self._traces.begin(
            "attempt",
            headers,
            kind="CLIENT",
            attributes={
                "server.address": address.hostname,
                "server.port": address.port,
                "marway.model": name,
                "marway.version": version,
            },
        )
        try:
            reply = await super().predict(
                pod, name, version, headers={**headers, **self._traces.headers(span)}, body=body, deadline=deadline
            )
            span.set_attributes({"http.response.status_code": reply.status, "marway.outcome": reply.outcome or ""})
            if reply.outcome not in (Outcome.ANSWERED, Outcome.REFUSED):
                span.set_status(Status(StatusCode.ERROR, reply.outcome))
            return reply
        except asyncio.CancelledError:
            span.set_attribute("marway.outcome", "cancelled")  # by the deadline or by who asked: no fault of the pod
            raise
        except Exception as exc:
            fail(span, exc)
            raise
        finally:
            span.end()  # of an answer that comes in pieces: with the first
