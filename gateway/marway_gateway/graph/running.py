"""Runs a graph's nodes for one request: an interpreter over the tree that a graph is."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final, cast

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, InvalidRequest, MarwayError, Unavailable
from marway.graphs import LookupNode, ModelNode, Node, ParallelNode, SequenceNode, SplitterNode, SwitchNode
from marway_gateway.graph.data import Data
from marway_gateway.graph.documents import Plan
from marway_gateway.graph.messages import Message, null_message, true_of
from marway_gateway.graph.side_by_side import settled
from marway_gateway.graph.steps import StepFailed, Steps, named
from marway_gateway.graph.tables.lookups import Lookups
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
        lookups: Reads tables.
        deadline: When its answer must be there; whoever starts the run ends it then.
    """

    def __init__(
        self, plan: Plan, graph: tuple[str, str], request: Message, steps: Steps, lookups: Lookups, deadline: Deadline
    ) -> None:
        self._plan = plan
        self._graph = graph
        self._request = request
        self._steps = steps
        self._lookups = lookups
        self._deadline = deadline
        self._nodes = plan.graph.nodes
        self._answers: dict[str, Message] = {}
        self._data = Data(plan, request, self._answers)

    async def answer(self) -> Message:
        """Return the graph's answer.

        Raises:
            StepFailed: A node failed that must answer, or the output selects nothing that there is.
        """
        graph = self._plan.graph
        answer = await self._node(graph.start, self._request, self._deadline)
        if graph.output is None:
            return answer
        try:
            return Message(value=self._data.select(graph.output))
        except MarwayError as exc:
            raise StepFailed(named(exc, "output")) from exc

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
                return await self._within(name, node, deadline, lambda end: self._once(name, node, given, end))
            except StepFailed as exc:
                # Those that were tried together must not come back together.
                pause = random.uniform(0, min(_PAUSE_S * 2**number, _PAUSE_MAX_S))
                if number == node.retries or not exc.again or deadline.left_s() <= pause:
                    raise
            number += 1
            await asyncio.sleep(pause)
            self._forget(node)

    def _forget(self, node: Node) -> None:
        """Forget what the nodes of one answered that is tried again."""
        for child in node.children:
            self._answers.pop(child, None)
            self._forget(self._nodes[child])

    async def _within(
        self, name: str, node: Node, deadline: Deadline, run: Callable[[Deadline], Awaitable[Message]]
    ) -> Message:
        """Return what ``run`` does, which is ended after the node's time.

        Raises:
            StepFailed: It failed, or was ended.
        """
        timeout_s = node.timeout_s
        if timeout_s is None or timeout_s >= deadline.left_s():
            return await run(deadline)
        end = Deadline.after(timeout_s)
        try:
            async with asyncio.timeout_at(end.at) as timer:
                return await run(end)
        except TimeoutError:
            if not timer.expired():
                raise
            error = DeadlineExceeded(f"gave no answer within its timeout_s of {timeout_s:g} s")
            raise _failed(name, node, error, again=True) from None

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
        if fallback is not None and fallback.model is not None:
            model, selector = fallback.model, fallback.selector

            async def ask(end: Deadline) -> Message:
                wanted = given
                if isinstance(node, ModelNode):
                    wanted = await self._given(name, node, given)
                return await self._steps.ask(name, model, selector, wanted, end)

            try:
                return await self._within(name, node, deadline, ask), "fallback"
            except StepFailed as exc:
                failed.error.message += f"; its fallback {model}/{selector} failed too: {exc.error.message}"
                failed.error.args = (failed.error.message,)
        if not node.required:
            return null_message(), "failed"
        raise failed

    async def _once(self, name: str, node: Node, given: Message, deadline: Deadline) -> Message:
        """Return what a node answers at one try."""
        match node:
            case ModelNode():
                wanted = await self._given(name, node, given)
                return await self._steps.ask(name, node.model, node.selector, wanted, deadline)
            case SequenceNode():
                for child in node.nodes:
                    given = await self._node(child, given, deadline)
                return given
            case ParallelNode():
                return await self._parallel(name, node, given, deadline)
            case SwitchNode():
                return await self._node(self._case(name, node), given, deadline)
            case SplitterNode():
                return await self._node(self._steps.side(name, node.weights, node.sticky), given, deadline)
            case LookupNode():
                return await self._looked_up(name, node, given)

    async def _parallel(self, name: str, node: ParallelNode, given: Message, deadline: Deadline) -> Message:
        """Return the answers of nodes side by side, of as many as are waited for; the others are ended.

        Where not all are waited for, one that fails is one that does not answer.
        """
        wanted = len(node.nodes) if node.wait == "all" else 1 if node.wait == "any" else node.wait
        failures: list[StepFailed] = []
        answers: dict[str, Message] = {}

        def take(child: str, came: Message | StepFailed) -> bool:
            """Take in what came of a node; return whether that is enough."""
            if node.wait == "all":
                if isinstance(came, StepFailed):
                    raise came
                answers[child] = came
            elif isinstance(came, StepFailed):
                failures.append(came)
            elif not came.failed:
                answers[child] = came
            return len(answers) == wanted

        await settled({child: self._node(child, given, deadline) for child in node.nodes}, take)
        if len(answers) == wanted:
            return Message(parts={child: answers[child] for child in node.nodes if child in answers})
        if failures:
            raise failures[-1]
        error = Unavailable(f"{len(answers)} of its nodes answered, and it waits for {wanted}")
        raise _failed(name, node, error, again=True)

    def _case(self, name: str, node: SwitchNode) -> str:
        """Return the node that a switch goes to."""
        try:
            for case in node.cases:
                if true_of(self._data.evaluate(case.when)):
                    return case.node
        except MarwayError as exc:
            raise _failed(name, node, exc) from exc
        if node.default is not None:
            return node.default
        raise _failed(name, node, InvalidRequest("none of its cases holds, and it has no default"))

    async def _given(self, name: str, node: ModelNode, before: Message) -> Message:
        """Return what a model is given."""
        try:
            if node.parts is not None:
                return self._data.form(node.parts)
            if node.input is not None:
                return self._data.given(node.input, node.content_type)
            return await self._steps.tensors(
                before, node.tensors, self._request, whole=self._plan.graph.protocol == "open-inference",
                last=name in self._plan.last,
            )  # fmt: skip
        except MarwayError as exc:
            raise _failed(name, node, exc) from exc

    async def _looked_up(self, name: str, node: LookupNode, given: Message) -> Message:
        """Return what a lookup was given, with what it found."""
        path, report = self._steps.path + name, self._steps.report
        try:
            table, answer = await self._lookups.joined(node, self._data.select(node.key), given)
        except MarwayError as exc:
            raise _failed(name, node, exc, again=isinstance(exc, Unavailable)) from exc
        except asyncio.CancelledError:
            report.cancelled(path)
            raise
        report.asked(path, table)
        return answer


def _failed(name: str, node: Node, error: MarwayError, *, again: bool = False) -> StepFailed:
    """Return the failure of a node itself."""
    asked = None
    if isinstance(node, ModelNode):
        asked = f"{node.model}/{node.selector}"
    elif isinstance(node, LookupNode):
        asked = f"{node.table}/{node.selector}"
    return StepFailed(named(error, name, asked), again=again)
