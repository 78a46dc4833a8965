"""Continuous batching: a handler that is called again and again with all rows that are under way, a piece for each.

TorchServe 0.12's `ContinuousBatching` and `create_predict_response` (`continuousBatching: true` in an archive's
configuration file): with each call the handler returns a piece of each row's answer, and leaves in
`context.stopping_criteria` a function for each row, which says of a piece whether it is the last. A row brings its
input along once; in later calls the handler finds an empty row, and knows it by `context.get_request_id`.

Handlers keep what they know of a row under that id, so it must never come again: TorchServe makes one up for each
request. Here callers choose ids, and may choose one twice, so the handler is given it with a number behind.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any, Final, Generic, NamedTuple, TypeVar

from marway.wire.envelope import Answer
from marway.worker.calls import call_handler, saved_tensor
from marway.worker.requests import Request

__all__ = ["ContinuousBatch", "Step", "answered_whole"]

logger = logging.getLogger(__name__)

_NEXT: Final = "ts_stream_next"
"""The header by which a handler says without a criterion whether more follows: `true` or `false`."""

K = TypeVar("K", bound=Hashable)


class Step(NamedTuple, Generic[K]):
    """What a call gave for one row.

    Attributes:
        key: The row.
        answer: The piece.
        last: Whether no other follows.
        output: What the handler returned for it.
    """

    key: K
    answer: Answer
    last: bool
    output: object = None


class ContinuousBatch(Generic[K]):
    """The rows that are under way in one worker.

    Args:
        entry_point, context, processor, tensor: As `call_handler` has them.
    """

    def __init__(
        self,
        entry_point: Callable[[list[dict[str, Any]], Any], Any],
        context: Any,
        processor: Callable[[Any], Any],
        *,
        tensor: Callable[[Any], bytes] = saved_tensor,
    ) -> None:
        self._entry_point = entry_point
        self._context = context
        self._processor = processor
        self._tensor = tensor
        self._rows: dict[K, Request] = {}
        self._ids: dict[K, str] = {}
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def keys(self) -> list[K]:
        """The rows under way, in the order in which the handler is given them."""
        return list(self._rows)

    @property
    def request_ids(self) -> dict[int, str]:
        """The ids that callers gave the rows under way, by their places."""
        return {index: self._ids[key] for index, key in enumerate(self._rows)}

    def add(self, key: K, request: Request) -> None:
        """Have a row be part of all calls from the next one on."""
        self._ids[key] = request.request_id
        self._rows[key] = request._replace(request_id=f"{request.request_id}.{next(self._numbers)}")

    def remove(self, key: K) -> None:
        """Give a row up; one that is not under way is no error. The handler does not find it in the next call."""
        self._rows.pop(key, None)
        self._ids.pop(key, None)

    def step(self) -> tuple[list[Step[K]], BaseException | None]:
        """Call the handler once, and return a piece for each row, and what the handler raised, if it did.

        A handler that raises, or returns no list with a piece for each, ends all rows, as it does in TorchServe.
        """
        keys, requests = list(self._rows), list(self._rows.values())
        outcome = call_handler(self._entry_point, self._context, requests, self._processor, tensor=self._tensor)
        steps = []
        for index, (key, answer) in enumerate(zip(keys, outcome.answers, strict=True)):
            step = Step(key, answer, last=True)
            if outcome.outputs and answer.kind != "error":
                step = self._judged(key, index, outcome.outputs[index], answer)
            if step.last:
                self.remove(key)
            else:
                self._rows[key] = _without_input(self._rows[key])
            steps.append(step)
        return steps, outcome.exception

    def _judged(self, key: K, index: int, output: object, answer: Answer) -> Step[K]:
        """Return the piece, the last one unless the row's criterion, or else its header, says that more follows."""
        said = answer.headers.get(_NEXT)
        if said is not None:
            answer = replace(answer, headers={name: text for name, text in answer.headers.items() if name != _NEXT})
        criteria = self._context.stopping_criteria
        headers = self._rows[key].headers
        if headers.explains or "describe" in headers:
            # One answer, beside the rows that are generated; TorchServe repeats it for ever.
            return Step(key, answer, True, output)
        if not criteria:
            return Step(key, answer, said != "true", output)
        try:
            ends = criteria[index](output)
        except Exception as exc:
            logger.error("The stopping criterion raised %s.", type(exc).__name__, exc_info=exc)
            message = f"the handler's stopping criterion failed: {type(exc).__name__}: {exc}"
            return Step(key, Answer(500, message.encode(errors="replace"), "error"), last=True)
        return Step(key, answer, ends is None or bool(ends), output)


def answered_whole(batch: ContinuousBatch[int], requests: Sequence[Request]) -> tuple[list[list[Step[int]]], Any]:
    """Call the handler until rows are answered whole; return the pieces of each, and what it raised, if it did.

    ``batch`` has no other rows.
    """
    pieces: list[list[Step[int]]] = [[] for _ in requests]
    for index, request in enumerate(requests):
        batch.add(index, request)
    exception = None
    while len(batch):
        steps, exception = batch.step()
        for step in steps:
            pieces[step.key].append(step)
    return pieces, exception


def _without_input(request: Request) -> Request:
    """Return a row as it is in later calls: its headers without those of its parts, and no values."""
    headers = type(request.headers)((name, text) for name, text in dict.items(request.headers) if type(text) is str)
    return request._replace(headers=headers, inputs=dict)
