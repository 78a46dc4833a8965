"""The connections to one TorchServe: two gRPC channels, two REST clients, and tokens where it wants them.

A call whose token is refused is made once more with a new one; nothing was done by the first.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc
import httpx

from marway.errors import MarwayError, RuntimeDown, clip
from marway.wire.runtime import RuntimeInfo
from marway_sidecar.backends.base import NotSent
from marway_sidecar.backends.torchserve.proto import inference_pb2, inference_pb2_grpc, management_pb2_grpc
from marway_sidecar.backends.torchserve.tokens import Kind, Tokens

__all__ = ["MANAGEMENT_TIMEOUT_S", "Connection", "NotHttp"]

MANAGEMENT_TIMEOUT_S = 30.0
_INFERENCE = f"/{inference_pb2.DESCRIPTOR.package}.InferenceAPIsService"
_TOKEN_REFUSED = ("Token Authorization failed", "Token Authentication failed")

_ONE_REQUESTS = ("illegal header", "receive buffer too long")
"""What h11 says of headers that are none, or too many to be read: the server that they come from is well."""

T = TypeVar("T")


class NotHttp(MarwayError):
    """A request that cannot be sent as HTTP, or an answer that cannot be read.

    Args:
        said: What was wrong.
        asked: Whether it was the request.
    """

    def __init__(self, said: str, *, asked: bool) -> None:
        super().__init__(f"TorchServe's REST API cannot carry the {'request' if asked else 'answer'}: {said}")
        self.asked = asked


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
            for address in (info.addresses.grpc_inference, info.addresses.grpc_management)
        ]
        self.inference = inference_pb2_grpc.InferenceAPIsServiceStub(self._channels[0])  # type: ignore[no-untyped-call]  # generated
        self.management = management_pb2_grpc.ManagementAPIsServiceStub(self._channels[1])  # type: ignore[no-untyped-call]  # generated
        # Of requests and answers as bytes: see `messages`.
        self.predictions = self._channels[0].unary_unary(f"{_INFERENCE}/Predictions", None, None)
        self.stream_predictions = self._channels[0].unary_stream(f"{_INFERENCE}/StreamPredictions", None, None)
        self._rest = {
            "inference": httpx.AsyncClient(
                base_url=info.addresses.inference, trust_env=False, verify=_is_https(info.addresses.inference)
            ),
            "management": httpx.AsyncClient(
                base_url=info.addresses.management,
                timeout=MANAGEMENT_TIMEOUT_S,
                trust_env=False,
                verify=_is_https(info.addresses.management),
            ),
        }
        self._tokens = Tokens(key_file, self._rest["management"]) if key_file is not None else None

    async def rpc(self, kind: Kind, method: Any, request: Any, *, timeout_s: float) -> Any:
        """Return the answer to a unary call.

        Raises:
            grpc.aio.AioRpcError: It failed.
            RuntimeDown: The connections were closed just before.
        """
        try:
            if self._tokens is None:
                return await method(request, timeout=timeout_s)

            async def call(token: str | None) -> Any:
                return await method(request, timeout=timeout_s, metadata=_bearer(token))

            return await self._with_token(kind, call)
        except grpc.aio.UsageError as exc:
            raise _closed() from exc

    async def stream(self, method: Any, request: Any, *, timeout_s: float) -> AsyncGenerator[Any, None]:
        """Yield the messages that answer an inference call; it is cancelled when the caller stops asking.

        Raises:
            grpc.aio.AioRpcError: It failed.
            RuntimeDown: The connections were closed just before.
        """

        async def begin(token: str | None) -> tuple[Any, Any, Any]:
            try:
                call = method(request, timeout=timeout_s, metadata=_bearer(token))
            except grpc.aio.UsageError as exc:
                raise _closed() from exc
            messages = aiter(call)
            try:
                return call, messages, await anext(messages, None)
            except grpc.aio.UsageError as exc:
                raise _closed() from exc
            except BaseException:
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
            except httpx.ConnectError as exc:
                raise NotSent(f"TorchServe does not answer: {exc}") from exc
            except httpx.TransportError as exc:
                if isinstance(exc, httpx.ProtocolError) and any(said in str(exc).lower() for said in _ONE_REQUESTS):
                    raise NotHttp(clip(str(exc), 200), asked=isinstance(exc, httpx.LocalProtocolError)) from exc
                raise RuntimeDown(f"TorchServe does not answer: {exc}") from exc
            except RuntimeError as exc:
                if self._rest[kind].is_closed:  # it says so in no kind of its own
                    raise _closed() from exc
                raise

        return await self._with_token(kind, call)

    async def aclose(self) -> None:
        """Close everything; calls under way are cut off."""
        for channel in self._channels:
            await channel.close(None)
        for client in self._rest.values():
            await client.aclose()

    async def _with_token(self, kind: Kind, call: Callable[[str | None], Awaitable[T]]) -> T:
        if self._tokens is None:
            return await call(None)
        token = await self._tokens.get(kind)
        try:
            result = await call(token)
        except grpc.aio.AioRpcError as exc:
            if not _refused(exc.code() is grpc.StatusCode.PERMISSION_DENIED, exc.details()):
                raise
        else:
            if not isinstance(result, httpx.Response) or not _refused(result.status_code == 400, result.text):
                return result
        await self._tokens.renew(kind, token)
        return await call(await self._tokens.get(kind))


def _closed() -> RuntimeDown:
    """Return what it means that a call was begun, or had not taken its first step, when its connection was closed."""
    return RuntimeDown("TorchServe went down as the call was made")


def _is_https(url: str) -> bool:
    """Return whether certificates matter: reading all that the machine trusts holds the event loop for 20 ms."""
    return url.startswith("https:")


def _bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),) if token is not None else ()


def _refused(code_fits: bool, text: str | None) -> bool:
    return code_fits and any(said in (text or "") for said in _TOKEN_REFUSED)
