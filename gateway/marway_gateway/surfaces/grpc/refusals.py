"""gRPC methods of other servers that are not served here: each call is told so, whatever it carries.

Reflection leaves these methods out: it names what is served.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NoReturn

import grpc
import grpc.aio

__all__ = ["refused_rpcs"]


def refused_rpcs(
    service: str, methods: Mapping[str, str], *, streaming: Mapping[str, str] | None = None
) -> grpc.GenericRpcHandler[Any, Any]:
    """Return methods of a service that are refused as not implemented.

    Args:
        service: Its full name.
        methods: What each caller is told, by the method's name.
        streaming: The same of methods whose requests and answers stream.
    """
    handlers: dict[str, Any] = {
        name: grpc.unary_unary_rpc_method_handler(_refusing(message)) for name, message in methods.items()
    }
    handlers |= {
        name: grpc.stream_stream_rpc_method_handler(_refusing(message)) for name, message in (streaming or {}).items()
    }
    return grpc.method_handlers_generic_handler(service, handlers)


def _refusing(message: str) -> Callable[[Any, grpc.aio.ServicerContext[Any, Any]], Awaitable[NoReturn]]:
    async def refuse(_: Any, context: grpc.aio.ServicerContext[Any, Any]) -> NoReturn:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, message)

    return refuse
