"""The little of the Kubernetes API that is needed: list and watch the EndpointSlices of one Service. It only reads.

The address comes from the environment that every pod has, certificate bundle and token from the mount of its service
account. The token is read for each request, because the kubelet replaces it (every hour or so) long before the process
ends; the bundle for each client, and a client that failed is replaced.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from marway.errors import InvalidSettings, clip
from marway_gateway.discovery.endpoint_slices import EndpointSlice, EndpointSliceList, Status, WatchEvent

__all__ = ["ApiTrouble", "KubernetesApi"]

_CONNECT_S: Final = 5.0
_LIST_S: Final = 20.0
_PAGE: Final = 500
_BYTES_MAX: Final = 32 * 1024 * 1024
"""The longest line of a watch and the largest page: 500 slices of 100 pods, as controllers fill them, are below it."""
# A dead connection is known within half a minute though a quiet watch may say nothing for longer.
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), seconds)
        for name, seconds in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)
    ),
)


class ApiTrouble(Exception):
    """The API did not give what was asked for.

    Attributes:
        retry_after_s: When to come again, if it said so.
        list_again: Whether nobody knows what was missed, so that watching does not help.
        expected: Whether it is only that changes since then are no longer kept (410 Gone).
    """

    def __init__(self, message: str, *, list_again: bool = False, expected: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s: float | None = None
        self.list_again = list_again
        self.expected = expected


class KubernetesApi:
    """Reads the EndpointSlices of one Service.

    Args:
        service: The Service's name.
        namespace: Its namespace, or None for the one of the mount.
        credentials_dir: The mount: `token`, `ca.crt` and `namespace`.
        environment: Where the API is: `KUBERNETES_SERVICE_HOST` and `KUBERNETES_SERVICE_PORT`.

    Attributes:
        namespace: The Service's.

    Raises:
        InvalidSettings: This is no pod of a cluster, or it has no service account.
    """

    def __init__(
        self,
        service: str,
        namespace: str | None,
        *,
        credentials_dir: Path,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
        if not host:
            raise InvalidSettings(
                f"kubernetes://{service} is for gateways inside a cluster, and KUBERNETES_SERVICE_HOST is not set: "
                "elsewhere use dns://NAME:PORT or the pods' URLs"
            )
        self._service = service
        self._credentials = credentials_dir
        self.namespace = namespace or self._mounted("namespace")
        self._mounted("token")
        self._mounted("ca.crt")
        self._url = (
            f"https://{f'[{host}]' if ':' in host else host}:{port}"
            f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"
        )
        self._client: httpx.AsyncClient | None = None

    async def aclose(self) -> None:
        """Close the connections; the next request makes new ones and reads the certificate bundle again."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def list_slices(self) -> tuple[list[EndpointSlice], str]:
        """Return all slices of the Service, and the version to watch from.

        Raises:
            ApiTrouble: Not now.
        """
        slices: list[EndpointSlice] = []
        more = ""
        try:
            async with asyncio.timeout(_LIST_S):
                while True:
                    params = {"limit": str(_PAGE), **({"continue": more} if more else {})}
                    async with self._get(params, read_s=_LIST_S) as response:
                        page = EndpointSliceList.model_validate_json(await _read(response))
                    slices += page.items
                    more = page.metadata.continue_
                    if not more:
                        return slices, page.metadata.resource_version
        except TimeoutError as exc:
            raise ApiTrouble(f"it did not answer within {_LIST_S:g} s") from exc
        except ValueError as exc:
            raise ApiTrouble("it answered with something else than a list of EndpointSlices", list_again=True) from exc

    @asynccontextmanager
    async def watch_slices(self, version: str, *, duration_s: int) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Open a watch and give what changes after a version, until the API ends it.

        Args:
            version: A `resourceVersion`.
            duration_s: After which time the API is to end it.

        Raises:
            ApiTrouble: It could not be opened, broke, or said something else than events; or the version is too old.
        """
        params = {
            "watch": "1",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(duration_s),
        }
        async with self._get(params, read_s=duration_s + _LIST_S) as response:
            yield self._events(response)

    async def _events(self, response: httpx.Response) -> AsyncIterator[WatchEvent]:
        async for line in _lines(response):
            try:
                event = WatchEvent.model_validate_json(line)
                status = Status.model_validate(event.object) if event.type == "ERROR" else None
            except ValueError as exc:
                raise ApiTrouble("it sent something else than a watch event", list_again=True) from exc
            if status is not None:
                raise _trouble(status.code, status.message or status.reason, self.namespace)
            yield event

    @asynccontextmanager
    async def _get(self, params: Mapping[str, str], *, read_s: float) -> AsyncIterator[httpx.Response]:
        try:
            if self._client is None:
                self._client = await asyncio.to_thread(self._new_client)
            token = await asyncio.to_thread(self._mounted, "token")
            async with self._client.stream(
                "GET",
                self._url,
                params={"labelSelector": f"kubernetes.io/service-name={self._service}", **params},
                headers={"authorization": f"Bearer {token}", "accept": "application/json"},
                timeout=httpx.Timeout(_CONNECT_S, read=read_s),
            ) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response, await _read(response), self.namespace)
                yield response
        except InvalidSettings as exc:  # of the mount
            raise ApiTrouble(exc.message) from exc
        except (httpx.HTTPError, ssl.SSLError) as exc:
            raise ApiTrouble(f"{type(exc).__name__}: {clip(str(exc), 200)}") from exc

    def _new_client(self) -> httpx.AsyncClient:
        try:
            context = ssl.create_default_context(cafile=self._credentials / "ca.crt")
        except OSError as exc:  # ssl.SSLError is one
            raise InvalidSettings(f"{self._credentials}/ca.crt is no certificate bundle: {exc}") from exc
        transport = httpx.AsyncHTTPTransport(verify=context, socket_options=_KEEP_ALIVE)
        return httpx.AsyncClient(transport=transport, trust_env=False, follow_redirects=False)

    def _mounted(self, name: str) -> str:
        path = self._credentials / name
        try:
            text = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as exc:
            why = exc.strerror if isinstance(exc, OSError) else "it is no text"
            raise InvalidSettings(
                f"kubernetes:// needs {path}, which cannot be read ({why}): mount a service account's token "
                "there, as the component endpointslices does, or say where it is in kubernetes_credentials_dir"
            ) from exc
        if not text:
            raise InvalidSettings(f"kubernetes:// needs {path}, which is empty")
        return text


async def _read(response: httpx.Response) -> bytes:
    data = bytearray()
    async for piece in response.aiter_bytes():
        data += piece
        if len(data) > _BYTES_MAX:
            raise ApiTrouble(f"it answered with more than {_BYTES_MAX} bytes", list_again=True)
    return bytes(data)


async def _lines(response: httpx.Response) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, however it is cut into pieces; what a break leaves unfinished is no line."""
    # Not httpx's aiter_lines, which also splits at characters that JSON may hold, such as U+2028.
    held = bytearray()
    async for piece in response.aiter_bytes():
        first, *rest = piece.split(b"\n")
        held += first
        for following in rest:
            if held.strip():
                yield bytes(held)
            held = bytearray(following)
        if len(held) > _BYTES_MAX:
            raise ApiTrouble(f"it sent a line of more than {_BYTES_MAX} bytes", list_again=True)


def _refusal(response: httpx.Response, body: bytes, namespace: str) -> ApiTrouble:
    try:
        message = Status.model_validate_json(body).message
    except ValueError:
        message = ""
    trouble = _trouble(response.status_code, message, namespace)
    after = response.headers.get("retry-after", "")
    trouble.retry_after_s = min(float(after), 60.0) if after.isascii() and after.isdigit() else None
    return trouble


def _trouble(code: int, message: str, namespace: str) -> ApiTrouble:
    """Return the error that stands for a status of the API."""
    detail = f"{code} {clip(message, 200)}".strip()
    if code == httpx.codes.GONE:
        return ApiTrouble(detail, list_again=True, expected=True)
    if code == httpx.codes.UNAUTHORIZED:
        return ApiTrouble(
            f"it does not know the token of this service account ({detail}): see that the mounted token is this "
            "cluster's and has not expired"
        )
    if code == httpx.codes.FORBIDDEN:
        return ApiTrouble(
            f"the gateway's service account may not read EndpointSlices ({detail}): bind it to a Role in namespace "
            f'{namespace} with apiGroups ["discovery.k8s.io"], resources ["endpointslices"], verbs ["list", "watch"]'
        )
    return ApiTrouble(f"it answered with status {detail}")
