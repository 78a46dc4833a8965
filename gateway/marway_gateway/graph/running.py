"""Runs a graph's nodes for one request: an interpreter over the tree that a graph is."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final, cast

from jmespath.exceptions import JMESPathError

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidRequest, MarwayError, ModelError, Unimplemented
from marway.graphs import ModelNode, SequenceNode
from marway_gateway.graph.documents import Expression, Plan
from marway_gateway.graph.messages import Message, Unreadable, form_of
from marway_gateway.graph.steps import StepFailed, Steps, named
from marway_gateway.observe.graph_report import NodeOutcome
from marway_gateway.observe.metrics import outcome_of

__all__ = ["Run"]

_PAUSE_S: Final = 0.05
_PAUSE_MAX_S: Final = 1.0


class Run:
    """One run of a graph.

    Args:
        plan: The graph.
        graph: Its name and version.
        request: What it is given.
        steps: Asks models.
        deadline: When its answer must be there; whoever starts the run ends it then.
    """

    def __init__(self, plan: Plan, graph: tuple[str, str], request: Message, steps: Steps, deadline: Deadline) -> None:
        self._plan = plan
        self._graph = graph
        self._request = request
        self._steps = steps
        self._deadline = deadline
        self._nodes = plan.graph.nodes
        self._answers: dict[str, Message] = {}

    async def answer(self) -> Message:
        """Return the graph's answer.

        Raises:
            StepFailed: A node failed that must answer, or the output selects nothing that there is.
        """
        graph = self._plan.graph
        answer = await self._node(graph.start, self._request, self._deadline)
        if graph.output is None:
            return answer
        return Message(value=self._select("output", graph.output))

    # -- one node ------------------------------------------------------------------------------------------

    async def _node(self, name: str, given: Message, deadline: Deadline) -> Message:
        """Return what a node answers, its tries, its fallback and what it need not answer taken together."""
        began = time.perf_counter()
        outcome: NodeOutcome = "ok"
        try:
            try:
                answer = await self._tried(name, given, deadline)
            except StepFailed as exc:
                answer, outcome = await self._instead(name, given, deadline, exc)
            self._answers[name] = answer
            return answer
        except StepFailed as exc:
            outcome = cast("NodeOutcome", outcome_of(exc.error))
            raise
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            seconds = time.perf_counter() - began
            self._steps.report.took(self._steps.path + name, seconds, outcome, graph=self._graph, name=name)

    async def _tried(self, name: str, given: Message, deadline: Deadline) -> Message:
        """Return what a node answers, at one of its tries."""
        node, number = self._nodes[name], 0
        while True:
            try:
                return await self._within(name, node.timeout_s, deadline, lambda end: self._once(name, given, end))
            except StepFailed as exc:
                pause = random.uniform(0, min(_PAUSE_S * 2**number, _PAUSE_MAX_S))
                if number == node.retries or not exc.again or deadline.left_s() <= pause:
                    raise
            number += 1
            await asyncio.sleep(pause)

    async def _within(
        self, name: str, timeout_s: float | None, deadline: Deadline, run: Callable[[Deadline], Any]
    ) -> Message:
        """Return what ``run`` does, which is ended after so many seconds.

        Raises:
            StepFailed: It failed, or was ended.
        """
        if timeout_s is None or timeout_s >= deadline.left_s():
            return cast("Message", await run(deadline))
        end = Deadline.after(timeout_s)
        try:
            async with asyncio.timeout_at(end.at) as timer:
                return cast("Message", await run(end))
        except TimeoutError:
            if not timer.expired():
                raise
            raise self._failed(
                name, DeadlineExceeded(f"gave no answer within its timeout_s of {timeout_s:g} s"), again=True
            ) from None

    async def _instead(
        self, name: str, given: Message, deadline: Deadline, failed: StepFailed
    ) -> tuple[Message, NodeOutcome]:
        """Return what stands in the place of a node's answer that failed.

        Raises:
            StepFailed: Nothing does.
        """
        node = self._nodes[name]
        fallback = node.fallback
        if fallback is not None and fallback.model is None:
            return Message(value=fallback.constant), "fallback"
        if not node.required:
            return _nothing(), "failed"
        raise failed

    async def _once(self, name: str, given: Message, deadline: Deadline) -> Message:
        """Return what a node answers at one try."""
        node = self._nodes[name]
        if isinstance(node, ModelNode):
            return await self._steps.ask(name, node.model, node.selector, self._given(name, node, given), deadline)
        if isinstance(node, SequenceNode):
            for child in node.nodes:
                given = await self._node(child, given, deadline)
            return given
        raise self._failed(name, Unimplemented(f"nodes of kind {node.kind} do not run yet"))

    # -- data ----------------------------------------------------------------------------------------------

    def _given(self, name: str, node: ModelNode, before: Message) -> Message:
        """Return what a model is given."""
        if node.parts is not None:
            nothing = Message(value=None)
            return form_of({field: self._answers.get(each, nothing) for field, each in node.parts.items()})
        if node.input is None:
            return before
        value = self._select(name, node.input)
        if node.content_type == "text/plain" and not isinstance(value, str):
            raise self._failed(
                name,
                InvalidRequest(f"its input `{node.input}` selects no text, and it is to be sent as text/plain"),
            )
        kind = "text/plain; charset=utf-8" if node.content_type == "text/plain" else node.content_type
        return Message(value=value, content_type=kind)

    def _select(self, name: str, text: str) -> Any:
        """Return what an expression of a node selects.

        Raises:
            StepFailed: Nothing, or it cannot be evaluated on what there is.
        """
        value = self._evaluate(name, self._plan.expressions[text])
        if value is None:
            raise self._failed(name, InvalidRequest(f"its expression `{text}` selects nothing of what there is"))
        return value

    def _evaluate(self, name: str, expression: Expression) -> Any:
        """Return what an expression is, None where it selects nothing.

        Raises:
            StepFailed: It cannot be evaluated: what it looks into is no JSON, or not of the type that it wants.
        """
        what = "the request"
        try:
            seen: dict[str, Any] = {"request": self._request.value if expression.request else None}
            nodes: dict[str, Any] = {}
            for each in expression.nodes:
                what = f"the answer of node {each}"
                answered = self._answers.get(each)
                nodes[each] = None if answered is None else answered.value
            seen["nodes"] = nodes
        except Unreadable as exc:
            error: MarwayError = InvalidRequest(f"its expression `{expression.text}` looks into {what}, which {exc}")
            if what != "the request":
                error = ModelError(error.message)
            raise self._failed(name, error) from exc
        try:
            return expression.search(seen)
        except JMESPathError as exc:
            said = " ".join(str(exc).split())
            raise self._failed(
                name, InvalidRequest(f"its expression `{expression.text}` cannot be evaluated: {said}")
            ) from exc

    def _failed(self, name: str, error: MarwayError, *, again: bool = False) -> StepFailed:
        """Return the failure of a node itself."""
        node = self._nodes.get(name)
        asked = f"{node.model}/{node.selector}" if isinstance(node, ModelNode) else None
        return StepFailed(named(error, name, asked), again=again)


def _nothing() -> Message:
    """Return the answer of a node that failed and need not answer."""
    message = Message(value=None)
    message.failed = True
    return message
