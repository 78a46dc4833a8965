"""Graphs without a gateway: a predictor whose models are functions, and what runs graphs over it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from marway.deadline import Deadline
from marway.errors import ModelNotFound
from marway.graphs import GRAPH_BACKEND, parse_graph
from marway.records import Signature, VersionRecord
from marway.resolve.resolved import Resolved
from marway.serving import ServingSettings
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Row, decode_rows, encode_answers
from marway.wire.headers import Outcome
from marway.wire.request import RequestIds
from marway_gateway.graph.documents import Plan
from marway_gateway.graph.graphs import Graphs
from marway_gateway.graph.steps import Means
from marway_gateway.graph.tables.lookups import Lookups
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.metrics import Metrics
from marway_gateway.observe.telemetry import RequestInfo, Telemetry
from marway_gateway.predict.call import Answer as Predicted
from marway_gateway.predict.call import PredictCall
from marway_gateway.predict.cancel_scope import CancelScope, DeadlineTimer
from marway_gateway.transport.reply import Reply
from marway_http.channel import header_block
from support.registry import record_of

__all__ = ["Model", "Models", "Said", "convert", "reply", "rows_answered"]

Said = bytes | Reply
Model = Callable[[PredictCall], Awaitable[Said]]
"""What a model answers: JSON, or a whole reply. What it raises is what the pipeline would."""


async def convert(size: int, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Run it here."""
    return function(*args, **kwargs)


class _Documents:
    def __init__(self, graphs: Mapping[str, Plan]) -> None:
        self._graphs = graphs

    async def plan(self, record: VersionRecord) -> Plan:
        return self._graphs[record.name]


class Models:
    """A predictor.

    Args:
        graphs: Documents by name; they are asked as models are.
        serving: How each model is served.
        backends: Of models that are not TorchServe's.
        tables: Where lookups find rows.
        models: By name.

    Attributes:
        asked: Names and bodies of the calls, in their order.
        calls: Those calls.
        running: How many calls are under way.
        info: What is known of the last call of `ask`.
        signatures: Of models, by name.
    """

    def __init__(
        self,
        graphs: Mapping[str, Any] | None = None,
        *,
        serving: Mapping[str, ServingSettings] | None = None,
        backends: Mapping[str, str] | None = None,
        tables: Any = None,
        **models: Model,
    ) -> None:
        self.asked: list[tuple[str, bytes]] = []
        self.calls: list[PredictCall] = []
        self.running = 0
        self.signatures: dict[str, Signature] = {}
        self.info: RequestInfo
        self.telemetry = Telemetry(Metrics(), None)
        self._models = models
        self._serving = serving or {}
        self._backends = backends or {}
        self._plans = {name: Plan.of(parse_graph(json.dumps(each))) for name, each in (graphs or {}).items()}
        means = Means(self.telemetry, convert, 1 << 20)
        self._graphs = Graphs(_Documents(self._plans), means, Lookups(self, tables))  # type: ignore[arg-type]

    def lookup(self, name: str, selector: str | None) -> Resolved:
        """Return a version, as a resolver does that knows them all."""
        backend = GRAPH_BACKEND if name in self._plans else self._backends.get(name, "torchserve")
        signature = self.signatures.get(name, Signature())
        record = record_of(name.encode(), name=name, backend=backend, signature=signature)
        return Resolved(record, self._serving.get(name, ServingSettings()), None)

    async def resolve(self, call: PredictCall) -> Resolved:
        if call.name not in self._models and call.name not in self._plans:
            raise ModelNotFound(f"there is no model {call.name}", model=call.name)
        resolved = call.resolved = self.lookup(call.name, call.selector)
        call.info.model, call.info.version, call.info.serving = call.name, resolved.record.version, resolved.serving
        return resolved

    async def predict(self, call: PredictCall) -> Predicted:
        resolved = call.resolved or await self.resolve(call)
        if call.name in self._plans:
            return Predicted(await self._graphs.answer(self, call, resolved), call)
        self.asked.append((call.name, call.body.whole or b""))
        self.calls.append(call)
        self.running += 1
        try:
            said = await self._models[call.name](call)
        finally:
            self.running -= 1
        return Predicted(said if isinstance(said, Reply) else reply(said), call)

    async def ask(
        self,
        graph: str,
        body: bytes = b"{}",
        content_type: str | None = "application/json",
        *,
        within_s: float = 20.0,
        **headers: str,
    ) -> Reply:
        """Return a graph's answer, as a surface asks for it."""
        said = {} if content_type is None else {"content-type": content_type}
        said |= {name.replace("_", "-"): value for name, value in headers.items()}
        self.info = info = RequestInfo(method="POST", path="", ids=RequestIds("r1"))
        info.metadata = said
        self.telemetry.predicting(info, "native")
        opened = RequestBody.opened(body, max_bytes=1 << 20)
        call = PredictCall(graph, None, said, Deadline.after(within_s), info, opened)
        with CancelScope(DeadlineTimer(), call, None):
            return (await self.predict(call)).reply


def reply(body: bytes, content_type: str = "application/json", status: int = 200, **headers: str) -> Reply:
    """Return what a model answers."""
    said = {"content-type": content_type, **{name.replace("_", "-"): value for name, value in headers.items()}}
    block = header_block([(name.encode(), value.encode()) for name, value in said.items()])
    return Reply(status, Outcome.ANSWERED, None, block, body, len(body))


def rows_answered(call: PredictCall, answer: Callable[[Row], Answer]) -> Reply:
    """Return what a model answers to rows."""
    envelope = encode_answers([answer(row) for row in decode_rows(call.body.whole or b"")])
    return reply(envelope, ROWS_CONTENT_TYPE)
