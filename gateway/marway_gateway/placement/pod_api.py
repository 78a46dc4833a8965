"""The client of a pod's own API: how it is, loads, comparisons, unloads and drains. Predictions have another.

The one seam where aiohttp's exceptions end.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Final, TypeVar
from urllib.parse import urlencode

import aiohttp
from pydantic import BaseModel, ValidationError
from yarl import URL

from marway.deadline import Deadline
from marway.errors import DeadlineExceeded, MarwayError, ModelError, NotFound, Unavailable, clip
from marway.wire.comparison import Comparison
from marway.wire.headers import REQUEST_TIMEOUT_MS, RETRY_AFTER
from marway.wire.pods import WATCH_HEARTBEAT_S, HandlerLines, LoadReport, ModelStatus, PodEvent, PodStatus
from marway.wire.problems import parse_problem
from marway_gateway.placement.pod import Pod
from marway_gateway.transport.base import AttemptFailed, PodLost, PodUnreachable, read_within
from marway_gateway.transport.reply import seconds_of
from marway_http.client_session import client_session

__all__ = ["PodApi"]

T = TypeVar("T", bound=BaseModel)
_BYTES_MAX: Final = 16 * 1024 * 1024
_SILENCE_S: Final = 5 * WATCH_HEARTBEAT_S
"""A watch that said nothing for so long is dead, whatever its connection looks like."""
_IDLE_S: Final = 15.0
"""How long an idle connection is kept. Less than any sidecar keeps it, so that none is used as it is being closed."""
_DRAIN_S: Final = 5.0
"""A sidecar answers a drain at once, before it is empty."""


class PodApi:
    """Asks sidecars for all that is no prediction.

    Args:
        connect_timeout_s: Time to open a connection.
    """

    def __init__(self, *, connect_timeout_s: float) -> None:
        self._session = client_session(connect_timeout_s=connect_timeout_s, idle_s=_IDLE_S)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    # -- how a pod is: what goes wrong says something of the pod ---------------------------------------------

    async def status(self, pod: Pod, *, timeout_s: float) -> PodStatus:
        """Ask a pod what it says of itself.

        Raises:
            AttemptFailed: It did not answer in time, or not with a status.
        """
        late = f"did not answer a health check within {timeout_s:g} s"
        response, data = await self._answer("GET", f"{pod.url}/status", Deadline.after(timeout_s), late=late)
        try:
            if response.status != 200:
                raise PodLost(f"answered a health check with status {response.status}", reason="bad_answer")
            return PodStatus.model_validate_json(data)
        except ValidationError as exc:
            raise PodLost("answered a health check with something else than a status", reason="bad_answer") from exc

    async def watch(self, pod: Pod) -> AsyncIterator[PodEvent]:
        """Yield what a pod says of itself as it changes, until it ends the watch.

        Raises:
            AttemptFailed: The watch could not be opened, broke, fell silent, or held something else than events.
        """
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=self._session.timeout.sock_connect, sock_read=_SILENCE_S
        )
        try:
            async with self._session.get(
                URL(f"{pod.url}/watch", encoded=True), allow_redirects=False, timeout=timeout, read_bufsize=_BYTES_MAX
            ) as response:
                if response.status != 200:
                    raise PodLost(f"answered a watch with status {response.status}", reason="bad_answer")
                while line := await response.content.readline():
                    yield PodEvent.model_validate_json(line)
        except (ValueError, ValidationError) as exc:  # ValueError: a line beyond the buffer
            raise PodLost("answered a watch with something else than events", reason="bad_answer") from exc
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc) from exc

    # -- what a pod is to do: what goes wrong is an error that names the pod ---------------------------------

    async def load(
        self, pod: Pod, name: str, version: str, *, prove: bool = False, deadline: Deadline | None = None
    ) -> LoadReport:
        """Have a version loaded, and its golden answers compared if that is asked for.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not on this pod, or not now.
            DeadlineExceeded: It took too long; the load goes on.
        """
        path = f"/models/{name}/{version}/load?prove={'true' if prove else 'false'}"
        return await self._ask(LoadReport, pod, "POST", path, deadline)

    async def compare(self, pod: Pod, name: str, version: str, *, base: str | None, deadline: Deadline) -> Comparison:
        """Have a version's answers compared with those of another one, or looked at where there is no other.

        Raises:
            LoadFailed, ArchiveCorrupt: It cannot be loaded.
            Unavailable: Not on this pod, or not now.
            DeadlineExceeded: It took too long.
        """
        query = f"?base={base}" if base is not None else ""
        try:
            found = await self._ask(Comparison, pod, "POST", f"/models/{name}/{version}/compare{query}", deadline)
        except NotFound as exc:
            if type(exc) is not NotFound:  # of the version
                raise
            raise Unavailable(
                f"pod {pod.name} cannot compare versions: its sidecar is older than this gateway; update it"
            ) from exc
        return found.model_copy(update={"pod": pod.name})

    async def unload(self, pod: Pod, name: str, version: str, *, deadline: Deadline) -> ModelStatus:
        """Have a version drained and unloaded; one that is not loaded stays so.

        Raises:
            Unavailable: It could not be drained in time, or the pod does not answer.
        """
        return await self._ask(ModelStatus, pod, "POST", f"/models/{name}/{version}/unload", deadline)

    async def handler_lines(
        self, pod: Pod, name: str, version: str, *, request_id: str | None, limit: int, deadline: Deadline
    ) -> HandlerLines:
        """Return the newest of what a version's handler wrote on a pod, or of what it wrote for one request.

        Raises:
            Unavailable: The pod does not answer, or its sidecar is older than this gateway and does not tell.
            DeadlineExceeded: It took too long.
        """
        query = urlencode({"lines": limit, **({} if request_id is None else {"request": request_id})})
        try:
            return await self._ask(HandlerLines, pod, "GET", f"/models/{name}/{version}/log?{query}", deadline)
        except NotFound as exc:
            if type(exc) is not NotFound:  # of the version
                raise
            raise Unavailable(
                f"pod {pod.name} does not tell what handlers wrote: its sidecar is older than this gateway; update it"
            ) from exc

    async def drain(self, pod: Pod) -> PodStatus:
        """Have a pod take no more requests.

        Raises:
            Unavailable: It does not answer.
        """
        return await self._ask(PodStatus, pod, "POST", "/drain", Deadline.after(_DRAIN_S))

    async def undrain(self, pod: Pod) -> PodStatus:
        """Have a pod take requests again.

        Raises:
            Conflict: It is stopping.
            Unavailable: It does not answer.
        """
        return await self._ask(PodStatus, pod, "DELETE", "/drain", Deadline.after(_DRAIN_S))

    async def _ask(self, kind: type[T], pod: Pod, method: str, path: str, deadline: Deadline | None) -> T:
        left_s = None if deadline is None else deadline.left_s()
        if left_s is not None and left_s <= 0:
            raise DeadlineExceeded(f"the deadline passed before pod {pod.name} was asked")
        late = f"did not answer within {left_s or 0:.3g} s"
        try:
            response, data = await self._answer(method, f"{pod.url}{path}", deadline, late=late)
        except AttemptFailed as exc:
            error = DeadlineExceeded if exc.reason == "timeout" else Unavailable
            raise error(f"pod {pod.name} {exc.why}") from exc
        if response.status != 200:
            after_s = seconds_of(response.headers.get(RETRY_AFTER))
            raise _named(pod, parse_problem(data, status=response.status, retry_after_s=after_s))
        try:
            return kind.model_validate_json(data)
        except ValidationError as exc:
            raise Unavailable(f"pod {pod.name} answered with something else than a sidecar does") from exc

    async def _answer(
        self, method: str, url: str, deadline: Deadline | None, *, late: str
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        """Return a response and its body; the pod is told the deadline, and ``late`` says that it passed."""
        left_s = None if deadline is None else deadline.left_s()
        headers = {} if left_s is None else {REQUEST_TIMEOUT_MS: str(max(1, int(left_s * 1000)))}
        try:
            async with (
                asyncio.timeout(left_s),
                self._session.request(
                    method, URL(url, encoded=True), headers=headers, allow_redirects=False
                ) as response,
            ):
                return response, await read_within(response.content.iter_any(), _BYTES_MAX, response.close)
        except aiohttp.ClientError as exc:  # some are time-outs as well
            raise _translated(exc) from exc
        except TimeoutError as exc:
            raise PodLost(late, reason="timeout") from exc
        except OSError as exc:
            raise _translated(exc) from exc


def _named(pod: Pod, error: MarwayError) -> MarwayError:
    """Return what a pod said as an error of the same kind that names the pod."""
    message = f"pod {pod.name}: {error.message}"
    if isinstance(error, ModelError):
        return ModelError(message, status=error.status, model=error.model, version=error.version)
    return type(error)(message, model=error.model, version=error.version, retry_after_s=error.retry_after_s)


def _translated(exc: aiohttp.ClientError | OSError) -> AttemptFailed:
    """Return what an exception of the client says of the pod."""
    if isinstance(exc, aiohttp.ConnectionTimeoutError):
        return PodUnreachable("did not take a connection in time", reason="connect_timeout")
    if isinstance(exc, aiohttp.ClientConnectorError):
        if isinstance(exc.os_error, ConnectionRefusedError):
            return PodUnreachable("refused the connection", reason="refused")
        return PodUnreachable(f"cannot be reached ({clip(str(exc.os_error), 200)})", reason="unreachable")
    if isinstance(exc, aiohttp.ClientResponseError):
        return PodLost("answered with something else than HTTP", reason="bad_answer")
    return PodLost("closed the connection before it had answered", reason="connection_lost")
