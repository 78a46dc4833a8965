"""Golden examples out of requests: what clients sent, and what the old server answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from marway.answers.difference import difference
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenAnswer
from marway.records import Signature
from marway_archiver.adopt.comparing.calling import NoAnswer, Server, compared_answer, has_id
from marway_archiver.adopt.comparing.rows import handler_rows, observed_signature
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
        signature: The tensors of an archive whose clients speak v2.
    """

    examples: tuple[Example, ...]
    left_out: tuple[str, ...] = ()
    signature: Signature | None = None

    @property
    def inputs(self) -> tuple[ExampleInput, ...]:
        """As they are sent."""
        return tuple(each.encoded() for each in self.examples)


def golden_of_requests(
    model: FoundModel, requests: Sequence[OldRequest], old: Server | None, *, most: int = 20
) -> Golden:
    """Return golden examples of a version, by asking the old server twice, or by what a file recorded. Blocks.

    Of a `.mar` they are what its handler gets: what clients of TorchServe sent, and the rows of requests of v1 and v2.
    Of a bundle they are v2 requests as they are. What the old server does not answer twice the same is none.

    Args:
        model: The version.
        requests: Those for it.
        old: The old server; None where it is gone.
        most: At most so many.
    """
    found: dict[tuple[bytes, str | None], Example] = {}
    left_out: list[str] = []
    answered: list[tuple[OldRequest, OldAnswer]] = []
    size = 0
    for number, request in enumerate(requests):
        if len(found) >= most:
            left_out.append(f"{len(requests) - number} more: {most} are enough (--examples)")
            break
        try:
            examples = _examples(model, request, old, answered)
        except _NoExample as exc:
            left_out.append(f"{request.where}: {exc}")
            continue
        size += len(request.body)
        if size > _BYTES_MAX:
            left_out.append(f"{request.where}: the examples before it are large enough together")
            break
        for each in examples[: most - len(found)]:
            found.setdefault((each.input, each.content_type), each)
    return Golden(tuple(found.values()), tuple(left_out), observed_signature(model, answered))


class _NoExample(Exception):
    """A request makes no golden example, for this reason."""


def _examples(
    model: FoundModel, request: OldRequest, old: Server | None, answered: list[tuple[OldRequest, OldAnswer]]
) -> list[Example]:
    route, is_mar = request.route, model.archive is not None
    if route.verb not in ("predictions", "predict", "infer"):
        raise _NoExample(f"golden examples are predictions, and it asks for {route.verb}")
    if not is_mar and route.protocol == "v1":
        raise _NoExample("a request of v1 is made tensors of before the server gets it")
    if route.query or route.rest:
        raise _NoExample("what its path says beside the model is no part of a golden example")
    if request.headers.get("content-encoding") or "inference-header-content-length" in request.headers:
        raise _NoExample("its body is compressed or holds binary tensors, which golden examples do not say")
    rows: list[Example] | None = None
    if is_mar and route.protocol != "torchserve":
        try:
            rows = [Example(each.data, content_type=each.content_type) for each in handler_rows(request)]
        except ValueError as exc:
            raise _NoExample(f"what its handler gets is not known: {exc}") from exc
    answer = _steady(model, request, old, answered)
    if answer is None and not is_mar:
        raise _NoExample("nobody says what is answered, which golden examples of a bundle state")
    if answer is not None and answer.kind == "error":
        raise _NoExample(f"the old server refuses it with status {answer.status}")
    if rows is not None:
        return rows
    if answer is None or answer.kind not in ("json", "text"):
        if not is_mar:
            raise _NoExample("its answer is bytes, which cannot be stated")
        return [Example(request.body, content_type=request.content_type)]
    output: Any = answer.value
    if not is_mar and isinstance(output, dict):
        output = {name: each for name, each in output.items() if name in ("outputs", "parameters")} or output
    return [Example(request.body, output, request.content_type)]


def _steady(
    model: FoundModel, request: OldRequest, old: Server | None, answered: list[tuple[OldRequest, OldAnswer]]
) -> GoldenAnswer | None:
    """Return what the old server answers again and again, and add it to ``answered``; None where nobody knows."""
    protocol = request.route.protocol
    given = protocol == "v2" and has_id(request.body)

    def read(answer: OldAnswer) -> GoldenAnswer:
        made = compared_answer(answer, protocol, has_id=given)
        if made.kind == "text" and answer.content_type is None and answer.body[:1] in (b"{", b"["):
            # TorchServe names no type of what a handler answers as JSON.
            try:
                return made.model_copy(update={"kind": "json", "value": json.loads(answer.body)})
            except (ValueError, RecursionError):
                return made
        return made

    if old is None:
        if request.answer is None:
            return None
        answered.append((request, request.answer))
        return read(request.answer)
    try:
        raw = old.ask(request, request.route.path, host=request.host or model.endpoint.host)
        first, second = read(raw), read(old.ask(request, request.route.path, host=request.host or model.endpoint.host))
    except NoAnswer as exc:
        raise _NoExample(f"the old server: {exc}") from exc
    differs = difference(first, second, DEFAULT_TOLERANCE)
    if differs is not None:
        raise _NoExample(f"the old server answers it otherwise the second time: {differs}")
    if raw.status < 400:
        answered.append((request, raw))
    return first
