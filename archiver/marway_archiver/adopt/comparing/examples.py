"""Golden examples out of requests: what clients sent, and what the old server answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from marway.answers.difference import difference
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenAnswer
from marway_archiver.adopt.comparing.asking import NoAnswer, Server, compared_answer, said_id
from marway_archiver.adopt.comparing.sent import OldAnswer, OldRequest
from marway_archiver.adopt.found import FoundModel
from marway_archiver.proving.examples import Example

__all__ = ["Golden", "golden_of_requests"]

_BYTES_MAX: Final = 4 * 1024 * 1024
"""Most bytes of all golden inputs of a version: they are sent again with every load."""


@dataclass(frozen=True, slots=True)
class Golden:
    """Golden examples of a version.

    Attributes:
        examples: With what the old server answered, where that can be stated.
        left_out: Requests that are none, each with why.
    """

    examples: tuple[Example, ...]
    left_out: tuple[str, ...] = ()

    @property
    def inputs(self) -> tuple[ExampleInput, ...]:
        """As they are sent."""
        return tuple(each.encoded() for each in self.examples)


def golden_of_requests(
    model: FoundModel, requests: Sequence[OldRequest], old: Server | None, *, most: int = 20
) -> Golden:
    """Return golden examples of a version, by asking the old server twice, or by what a file recorded. Blocks.

    A handler gets one row as a client of TorchServe sent it, so requests of v1 and v2 for a `.mar` are no examples of
    it; those of a bundle are v2 requests as they are. Answers that the old server does not repeat are none.

    Args:
        model: The version.
        requests: Those for it.
        old: The old server; None where it is gone.
        most: At most so many.
    """
    found: list[Example] = []
    left_out: list[str] = []
    size = 0
    for request in requests:
        if len(found) == most:
            left_out.append(f"{len(requests) - len(found) - len(left_out)} more: {most} are enough (--examples)")
            break
        try:
            example = _example(model, request, old)
        except _NoExample as exc:
            left_out.append(f"{request.where}: {exc}")
            continue
        size += len(request.body)
        if size > _BYTES_MAX:
            left_out.append(f"{request.where}: the examples before it are large enough together")
            break
        found.append(example)
    return Golden(tuple(found), tuple(left_out))


class _NoExample(Exception):
    """A request makes no golden example, for this reason."""


def _example(model: FoundModel, request: OldRequest, old: Server | None) -> Example:
    route = request.route
    if model.archive is not None and route.protocol != "torchserve":
        raise _NoExample(f"a request of {route.protocol} is made rows of before a handler gets it")
    if model.archive is not None and route.verb != "predictions":
        raise _NoExample(f"golden examples are predictions, and it asks for {route.verb}")
    if model.archive is None and route.protocol == "v1":
        raise _NoExample("a request of v1 is made tensors of before the server gets it")
    if route.query or route.rest:
        raise _NoExample("what its path says beside the model is no part of a golden example")
    if request.headers.get("content-encoding") or "inference-header-content-length" in request.headers:
        raise _NoExample("its body is compressed or holds binary tensors, which golden examples do not say")
    answer = _steady(model, request, old)
    if answer is None and model.archive is None:
        raise _NoExample("nobody says what is answered, which golden examples of a bundle state")
    if answer is None:
        return Example(request.body, content_type=request.content_type)
    if answer.kind == "error":
        raise _NoExample(f"the old server refuses it with status {answer.status}")
    output: Any = answer.value if answer.kind in ("json", "text") else None
    if answer.kind not in ("json", "text"):
        if model.archive is None:
            raise _NoExample("its answer is bytes, which cannot be stated")
        return Example(request.body, content_type=request.content_type)
    if model.archive is None and isinstance(output, dict):
        output = {name: each for name, each in output.items() if name in ("outputs", "parameters")} or output
    return Example(request.body, output, request.content_type)


def _steady(model: FoundModel, request: OldRequest, old: Server | None) -> GoldenAnswer | None:
    """Return what the old server answers again and again; None where nobody knows."""
    protocol = request.route.protocol
    given = protocol == "v2" and said_id(request.body)

    def read(answer: OldAnswer) -> GoldenAnswer:
        made = compared_answer(answer, protocol, said_id=given)
        if made.kind == "text" and answer.content_type is None and answer.body[:1] in (b"{", b"["):
            # TorchServe names no type of what a handler answers as JSON.
            try:
                return made.model_copy(update={"kind": "json", "value": json.loads(answer.body)})
            except (ValueError, RecursionError):
                return made
        return made

    if old is None:
        return read(request.answer) if request.answer is not None else None
    try:
        first, second = (read(old.ask(request, request.route.path, host=model.endpoint.host)) for _ in range(2))
    except NoAnswer as exc:
        raise _NoExample(f"the old server: {exc}") from exc
    differs = difference(first, second, DEFAULT_TOLERANCE)
    if differs is not None:
        raise _NoExample(f"the old server answers it otherwise the second time: {differs}")
    return first
