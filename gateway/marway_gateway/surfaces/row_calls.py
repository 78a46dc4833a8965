"""Predictions of many rows: one call of the predictor carries all rows of a request, and brings back all answers.

The surfaces that speak of tensors and instances share this, over REST and gRPC: find the version, turn what the caller
sent into rows by its signature, ask, and turn the answers back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from marway.errors import BodyTooLarge, DeadlineExceeded, MarwayError
from marway.resolve.resolver import Resolved
from marway.wire.envelope import ROWS_CONTENT_TYPE, mime_type
from marway_gateway.gateway import Gateway
from marway_gateway.http.body import RequestBody
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.predict.call import Answer, PredictCall
from marway_gateway.tensors.requests import Prepared, ReadRequest, Rendered, prepare, rendered

__all__ = ["RowCall"]

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

    async def predict(
        self, resolved: Resolved, read: ReadRequest, body: bytes, headers: Mapping[str, str], *, received_bytes: int
    ) -> Rendered:
        """Return the answer to a request.

        Args:
            resolved: The version.
            read: Reads its protocol.
            body: The request's body.
            headers: Those of its headers that the protocol gives a meaning to.
            received_bytes: Size of the caller's own body.

        Raises:
            InvalidRequest: As ``read``.
            BodyTooLarge: The rows are over the limit on their way to the pod.
            DeadlineExceeded: Not in time.
            ModelError: The handler refused a row or failed on it.
            MarwayError: As `Predictor.predict`.
        """
        record = resolved.record
        converters = self.gateway.converters
        try:
            async with asyncio.timeout(self.deadline - time.monotonic()):
                prepared = await converters.run(len(body), prepare, read, body, headers, resolved)
        except TimeoutError as exc:
            raise self.too_late("its body was not read yet") from exc
        call = self._within(prepared.timeout_s)
        data = await call._ask(resolved, prepared, received_bytes=received_bytes)
        try:
            async with asyncio.timeout(call.deadline - time.monotonic()):
                return await converters.run(len(data), rendered, prepared.render, data, prepared.count, record)
        except TimeoutError as exc:
            raise call.too_late("its answer was not written yet") from exc

    def _within(self, timeout_s: float | None) -> RowCall:
        """Return the call with the deadline that its body asks for, where that is earlier."""
        if timeout_s is None or timeout_s >= self.timeout_s:
            return self
        return replace(self, deadline=self.deadline - self.timeout_s + timeout_s, timeout_s=timeout_s)

    async def _ask(self, resolved: Resolved, prepared: Prepared, *, received_bytes: int) -> bytes:
        """Return the envelope of what the handler answers to the rows."""
        settings, info, record = self.gateway.settings, self.info, resolved.record
        envelope = prepared.envelope
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
        return data

    def too_late(self, where: str) -> DeadlineExceeded:
        """Return the error of a deadline that passed before a pod was asked."""
        return DeadlineExceeded(
            f"the request's deadline of {self.timeout_s:g} s passed: {where}",
            model=self.info.model,
            version=self.info.version,
        )


def _are_answers(answer: Answer) -> bool:
    kinds = [value.decode("latin-1") for name, value in answer.headers if name == b"content-type"]
    return [mime_type(kind) for kind in kinds] == [ROWS_CONTENT_TYPE]
