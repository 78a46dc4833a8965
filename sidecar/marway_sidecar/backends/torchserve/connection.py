"""The connections to one TorchServe: two gRPC channels, two REST clients, and tokens where it wants them.

A call whose token is refused is made once more with a new one; nothing was done by the first.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import grpc
import httpx

from marway.errors import MarwayError, RuntimeDown, clip
from marway.wire.runtime import RuntimeInfo
from marway_sidecar.backends.base import NotSent
from marway_sidecar.backends.torchserve.proto import inference_pb2, management_pb2_grpc

__all__ = ["MANAGEMENT_TIMEOUT_S", "Connection", "NotHttp", "closed"]

MANAGEMENT_TIMEOUT_S = 30.0
_INFERENCE = f"/{inference_pb2.DESCRIPTOR.package}.InferenceAPIsService"
_READ_TRIES = 50
_READ_PAUSE_S = 0.02
_TOKEN_REFUSED = ("Token Authorization failed", "Token Authentication failed")

_BAD_HTTP = ("illegal header", "receive buffer too long")
"""In h11's errors for headers that are malformed or too long: the server itself is well."""

Kind = Literal["inference", "management"]
T = TypeVar("T")


class NotHttp(MarwayError):
    """A request that cannot be sent as HTTP, or an answer that cannot be read.

    Args:
        reason: What was wrong.
        in_request: Whether it was the request.
    """

    def __init__(self, reason: str, *, in_request: bool) -> None:
        super().__init__(f"TorchServe's REST API cannot carry the {'request' if in_request else 'answer'}: {reason}")
        self.in_request = in_request


class Tokens:
    """The tokens of one TorchServe: its `key_file.json`, read again and renewed when one is refused.

    TorchServe writes the file in its working directory at each start, not atomically. It holds a key for inference, one
    for management and the API key with which `GET /token?type=…` of the management API makes a new one in the place of
    either. Keys expire after an hour by default, and nobody but us renews them.
    """

    def __init__(self, file: Path, management: httpx.AsyncClient) -> None:
        self._file = file
        self._management = management
        self._keys: dict[str, str] = {}
        self._renewing = asyncio.Lock()

    async def get(self, kind: Kind) -> str:
        """Return the token last known.

        Raises:
            MarwayError: The file is not there or cannot be read.
        """
        if kind not in self._keys:
            self._keys = await self._read()
        return self._keys[kind]

    async def renew(self, kind: Kind, refused: str) -> None:
        """Replace a token that was refused: by the file's when that is another, else by a new one.

        Raises:
            MarwayError: No new one could be had.
            RuntimeDown: TorchServe does not answer.
        """
        async with self._renewing:
            if self._keys.get(kind) != refused:
                return  # another call has renewed it
            self._keys = await self._read()
            if self._keys[kind] != refused:
                return
            headers = {"authorization": f"Bearer {self._keys['API']}"}
            try:
                answer = await self._management.get("/token", params={"type": kind}, headers=headers)
            except httpx.TransportError as exc:
                raise RuntimeDown(f"TorchServe does not answer: {exc}") from exc
            if answer.status_code != httpx.codes.OK:
                raise MarwayError(f"TorchServe refused to renew its {kind} token: is {self._file} its own key file?")
            self._keys = await self._read()

    async def _read(self) -> dict[str, str]:
        # A file that is being written is short or empty for a moment.
        for _ in range(_READ_TRIES):
            try:
                return await asyncio.to_thread(_keys_of, self._file)
            except (OSError, ValueError, KeyError, TypeError) as exc:
                error = exc
            await asyncio.sleep(_READ_PAUSE_S)
        raise MarwayError(f"TorchServe's key file {self._file} cannot be read: {error!r}") from error


def _keys_of(file: Path) -> dict[str, str]:
    document = json.loads(file.read_bytes())
    return {kind: str(document[kind]["key"]) for kind in ("inference", "management", "API")}


class Connection:
    """Connections to one TorchServe, opened when first used.

    Args:
        info: Where it answers.
        key_file: Its `key_file.json`, when it wants tokens.
    """

    def __init__(self, info: RuntimeInfo, *, key_file: Path | None = None) -> None:
        options = [
            ("grpc.max_send_message_length", info.max_request_bytes),
            ("grpc.max_receive_message_length", info.max_request_bytes),
            ("grpc.keepalive_time_ms", 2**31 - 1),  # TorchServe answers keepalive pings with GOAWAY
            ("grpc.max_reconnect_backoff_ms", 1000),  # one that is back is to be seen soon
            ("grpc.enable_retries", 0),  # what may be tried again is decided by the gateway
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),  # pings that TorchServe would have to answer, with every call
        ]
        self._channels = [
            grpc.aio.insecure_channel(address, options=options)
            for address in (info.addresses["grpc_inference"], info.addresses["grpc_management"])
        ]
        self.management = management_pb2_grpc.ManagementAPIsServiceStub(self._channels[1])  # type: ignore[no-untyped-call]  # generated
        # Of requests and answers as bytes: see `calls`.
        self.predictions = self._channels[0].unary_unary(f"{_INFERENCE}/Predictions", None, None)
        self.stream_predictions = self._channels[0].unary_stream(f"{_INFERENCE}/StreamPredictions", None, None)
        self._rest = {kind: _rest_client(info.addresses[kind]) for kind in ("inference", "management")}
        self.tokens = Tokens(key_file, self._rest["management"]) if key_file is not None else None

    async def rpc(self, kind: Kind, method: Any, request: Any, *, timeout_s: float) -> Any:
        """Return the answer to a unary call.

        Raises:
            grpc.aio.AioRpcError: It failed.
            RuntimeDown: The connections were closed just before.
        """

        async def call(token: str | None) -> Any:
            return await method(request, timeout=timeout_s, metadata=_bearer(token))

        try:
            return await self._with_token(kind, call)
        except grpc.aio.UsageError as exc:
            raise closed() from exc

    async def stream(self, method: Any, request: Any, *, timeout_s: float) -> AsyncGenerator[Any, None]:
        """Yield the messages that answer an inference call; it is cancelled when the caller stops asking.

        Raises:
            grpc.aio.AioRpcError: It failed.
            RuntimeDown: The connections were closed just before.
        """

        async def begin(token: str | None) -> tuple[Any, Any, Any]:
            call = None
            try:
                call = method(request, timeout=timeout_s, metadata=_bearer(token))
                messages = aiter(call)
                return call, messages, await anext(messages, None)
            except grpc.aio.UsageError as exc:
                raise closed() from exc
            except BaseException:
                if call is not None:
                    call.cancel()
                raise

        call, messages, message = await self._with_token("inference", begin)
        try:
            while message is not None:
                yield message
                message = await anext(messages, None)
        finally:
            call.cancel()

    async def rest(self, kind: Kind, method: str, path: str, **options: Any) -> httpx.Response:
        """Return the answer to a REST call, whatever its status.

        Raises:
            RuntimeDown: TorchServe does not answer; `NotSent` when it took no connection.
            NotHttp: The request or the answer is none that HTTP can carry.
            httpx.TimeoutException: It did not answer in time.
        """

        async def call(token: str | None) -> httpx.Response:
            headers = {**options.get("headers", {}), **dict(_bearer(token))}
            try:
                return await self._rest[kind].request(method, path, **{**options, "headers": headers})
            except httpx.TimeoutException:
                raise
            except httpx.TransportError as exc:
                if isinstance(exc, httpx.ProtocolError) and any(text in str(exc).lower() for text in _BAD_HTTP):
                    raise NotHttp(clip(str(exc), 200), in_request=isinstance(exc, httpx.LocalProtocolError)) from exc
                kind_of_error = NotSent if isinstance(exc, httpx.ConnectError) else RuntimeDown
                raise kind_of_error(f"TorchServe does not answer: {exc}") from exc
            except RuntimeError as exc:
                if self._rest[kind].is_closed:  # it says so in no kind of its own
                    raise closed() from exc
                raise

        return await self._with_token(kind, call)

    async def rest_stream(self, path: str, *, timeout_s: float, **options: Any) -> AsyncGenerator[httpx.Response, None]:
        """Yield the response to a `POST` of an inference, whose body is read by the caller; its end is the generator's.

        Only for a TorchServe that Marway's runtime started, which wants no token.

        Raises:
            RuntimeDown: As `rest` does.
            httpx.TimeoutException: Nothing of the answer came for so long.
        """
        try:
            async with self._rest["inference"].stream("POST", path, timeout=timeout_s, **options) as response:
                yield response
        except httpx.TimeoutException:
            raise
        except httpx.TransportError as exc:
            kind_of_error = NotSent if isinstance(exc, httpx.ConnectError) else RuntimeDown
            raise kind_of_error(f"TorchServe does not answer: {exc}") from exc

    async def aclose(self) -> None:
        """Close everything; calls under way are cut off."""
        for channel in self._channels:
            await channel.close(None)
        for client in self._rest.values():
            await client.aclose()

    async def _with_token(self, kind: Kind, call: Callable[[str | None], Awaitable[T]]) -> T:
        if self.tokens is None:
            return await call(None)
        token = await self.tokens.get(kind)
        try:
            result = await call(token)
        except grpc.aio.AioRpcError as exc:
            if not _refused(exc.code() is grpc.StatusCode.PERMISSION_DENIED, exc.details()):
                raise
        else:
            if not isinstance(result, httpx.Response) or not _refused(result.status_code == 400, result.text):
                return result
        await self.tokens.renew(kind, token)
        return await call(await self.tokens.get(kind))


def closed() -> RuntimeDown:
    """Return what it means that a call was begun, or had not taken its first step, when its connection was closed."""
    return RuntimeDown("TorchServe went down as the call was made")


def _rest_client(url: str) -> httpx.AsyncClient:
    # Reading all certificates that the machine trusts holds the event loop for 20 ms.
    return httpx.AsyncClient(
        base_url=url, timeout=MANAGEMENT_TIMEOUT_S, trust_env=False, verify=url.startswith("https:")
    )


def _bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token is not None else ()


def _refused(code_fits: bool, text: str | None) -> bool:
    return code_fits and any(marker in (text or "") for marker in _TOKEN_REFUSED)
