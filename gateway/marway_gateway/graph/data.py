"""What expressions of a graph see: the request, and the answers of nodes that have ended."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jmespath.exceptions import JMESPathError

from marway.errors import InvalidRequest, ModelError
from marway_gateway.graph.documents import Plan
from marway_gateway.graph.messages import Message, Unreadable, form_of, null_message

__all__ = ["Data"]


class Data:
    """The data of one run.

    Args:
        plan: The graph.
        request: What it was given.
        answers: Those of nodes that have ended, by name.
    """

    def __init__(self, plan: Plan, request: Message, answers: Mapping[str, Message]) -> None:
        self._expressions = plan.expressions
        self._request = request
        self._answers = answers

    def given(self, text: str, content_type: str) -> Message:
        """Return what an expression selects, to be sent as this content type.

        Raises:
            InvalidRequest: As `select`; or what is to be sent as text is none.
        """
        value = self.select(text)
        if content_type != "text/plain":
            return Message(value=value)
        if not isinstance(value, str):
            raise InvalidRequest(f"its input `{text}` selects no text, and is to be sent as text/plain")
        return Message(value=value, content_type="text/plain; charset=utf-8")

    def form(self, parts: Mapping[str, str]) -> Message:
        """Return the answers of nodes as the fields of a form, byte for byte; null of a node that did not run.

        Raises:
            ModelError: An answer is an object of several, of which one is neither JSON nor text.
        """
        try:
            return form_of({field: self._answers.get(node) or null_message() for field, node in parts.items()})
        except Unreadable as exc:
            raise ModelError(f"an answer that it is given {exc}") from exc

    def select(self, text: str) -> Any:
        """Return what an expression selects.

        Raises:
            InvalidRequest: Nothing; or as `evaluate`.
            ModelError: As `evaluate`.
        """
        value = self.evaluate(text)
        if value is None:
            raise InvalidRequest(f"its expression `{text}` selects nothing of what there is")
        return value

    def evaluate(self, text: str) -> Any:
        """Return what an expression is; None where it selects nothing.

        Raises:
            InvalidRequest: It looks into the request, which is neither JSON nor text, or cannot be evaluated on what
                there is.
            ModelError: It looks into an answer that is neither JSON nor text.
        """
        expression = self._expressions[text]
        looked_into = "the request"
        kind: type[InvalidRequest | ModelError] = InvalidRequest
        seen: dict[str, Any] = {}
        try:
            seen["request"] = self._request.value if expression.request else None
            nodes: dict[str, Any] = {}
            for each in expression.nodes:
                looked_into, kind = f"the answer of node {each}", ModelError
                answered = self._answers.get(each)
                nodes[each] = None if answered is None else answered.value
            seen["nodes"] = nodes
        except Unreadable as exc:
            raise kind(f"its expression `{text}` looks into {looked_into}, which {exc}") from exc
        try:
            return expression.search(seen)
        except JMESPathError as exc:
            reason = " ".join(str(exc).split())
            raise InvalidRequest(f"its expression `{text}` cannot be evaluated: {reason}") from exc
