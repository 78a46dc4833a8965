"""Predictions of many rows: one call of the predictor carries all rows of a request, and brings back all answers.

The surfaces that speak of tensors and instances share this, over REST and gRPC: find the version, turn what the caller
sent into rows by its signature, ask, and turn the answers back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError
from marway.resolve.resolver import Resolved
from marway.wire.envelope import ROWS_CONTENT_TYPE, Row, decode_answers, encode_rows, mime_type
from marway_gateway.body import RequestBody
from marway_gateway.call import Answer, PredictCall
from marway_gateway.gateway import Gateway
from marway_gateway.telemetry import RequestInfo
from marway_gateway.tensors.outputs import values_of

__all__ = ["RowCall", "off_the_loop"]

P = ParamSpec("P")
T = TypeVar("T")

_INLINE_BYTES: Final = 64 * 1024
"""What is smaller is converted where it is: a thread would cost more."""
_NOT_OF_ROWS: Final = frozenset({"content-type", "accept"})


@dataclass(frozen=True, slots=True)
class RowCall:
    """One request for predictions of several rows.

    Attributes:
        gateway: The gateway's parts.
        name: Model name or id.
        selector: Version or label, or None.
        headers: What goes to the pod beside content type and deadline.
        deadline: When the caller gives up, by `time.monotonic`.
        timeout_s: How long that was when the request came, for messages.
        info: Filled in on the way.
        fresh: Whether the caller wants no kept answer.
    """

    gateway: Gateway
    name: str
    selector: str | None
    headers: Mapping[str, str]
    deadline: float
    timeout_s: float
    info: RequestInfo
    fresh: bool = False

    async def resolve(self) -> Resolved:
        """Return the version that is asked.

        Raises:
            InvalidReference, NotFound: There is none.
            RegistryUnavailable: The registry does not answer.
            DeadlineExceeded: Not in time.
        """
        info = self.info
        began = time.perf_counter()
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                resolved = await self.gateway.resolver.resolve(self.name, self.selector)
        except TimeoutError as exc:
            raise self.too_late("its model was not found yet") from exc
        finally:
            info.resolve_s = time.perf_counter() - began
        record = resolved.record
        info.model, info.version, info.model_id = record.name, record.version, record.id
        info.label = resolved.label
        return resolved

    async def ask(self, resolved: Resolved, rows: Sequence[Row], *, received_bytes: int) -> list[Any]:
        """Return what the handler answers to each row, as `values_of` gives it.

        Args:
            resolved: The version.
            rows: What it is given.
            received_bytes: Size of the caller's own body.

        Raises:
            BodyTooLarge: The rows are over the limit on their way to the pod.
            ModelError: The handler refused a row or failed on it.
            MarwayError: As `Predictor.predict`.
        """
        settings, info, record = self.gateway.settings, self.info, resolved.record
        envelope = await off_the_loop(received_bytes, encode_rows, rows)
        if len(envelope) > settings.max_body_bytes:
            raise BodyTooLarge(
                f"the request's rows take {len(envelope)} bytes on their way to the model, numbers being JSON there; "
                f"this gateway accepts at most {settings.max_body_bytes} bytes: send fewer rows at once"
            )
        resolve_s = info.resolve_s
        call = PredictCall(
            # The version whose signature the rows were made by, also when a label moves meanwhile.
            name=record.name,
            selector=record.version,
            body=RequestBody.of(envelope, max_bytes=settings.max_body_bytes),
            headers={
                **{name: value for name, value in self.headers.items() if name not in _NOT_OF_ROWS},
                "content-type": ROWS_CONTENT_TYPE,
            },
            deadline=self.deadline,
            timeout_s=self.timeout_s,
            info=info,
            fresh=self.fresh,
        )
        try:
            answer = await self.gateway.predictor.predict(call)
            try:
                limit = settings.max_body_bytes
                data = await answer.whole(
                    max_bytes=limit,
                    too_large=f"the answers to the request's rows have more than {limit} bytes: "
                    "send fewer rows at once",
                )
            finally:
                answer.close()
        finally:
            info.label, info.resolve_s, info.request_bytes = resolved.label, resolve_s, received_bytes
        if not _are_answers(answer):
            raise MarwayError(f"pod {info.pod} does not know requests of many rows: is it older than this gateway?")
        return await off_the_loop(len(data), _values, data, len(rows), record.name, record.version)

    def too_late(self, where: str) -> DeadlineExceeded:
        """Return the error of a deadline that passed before a pod was asked."""
        return DeadlineExceeded(
            f"the request's deadline of {self.timeout_s:g} s passed: {where}",
            model=self.info.model,
            version=self.info.version,
        )


async def off_the_loop(size: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``function`` returns; it runs in a thread when it works on more than a little.

    Args:
        size: Bytes that it works on.
        function: What to run.
        args: Its arguments.
        kwargs: Its arguments by name.
    """
    if size <= _INLINE_BYTES:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


def _are_answers(answer: Answer) -> bool:
    kinds = [value.decode("latin-1") for name, value in answer.headers if name == b"content-type"]
    return [mime_type(kind) for kind in kinds] == [ROWS_CONTENT_TYPE]


def _values(data: bytes, count: int, model: str, version: str) -> list[Any]:
    try:
        answers = decode_answers(data)
    except ValueError as exc:
        raise MarwayError(f"the pod's answers to the request's rows cannot be read: {exc}") from exc
    if len(answers) != count:
        raise MarwayError(f"the pod gave {len(answers)} answers to {count} rows")
    return values_of(answers, model=model, version=version)
