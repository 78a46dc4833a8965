"""The management API over gRPC: `org.pytorch.serve.grpc.management.ManagementAPIsService`, on a port of its own.

Its port is beside the admin port and wants that one's tokens, for the gRPC port of predictions wants others, or none.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from functools import cached_property
from typing import Any, Final, cast

import grpc
import grpc.aio

from marway.deadline import Deadline
from marway.errors import MarwayError, clip
from marway.wire.request import read_ids
from marway_gateway.admin.parameters import named_caller
from marway_gateway.gateway import Gateway
from marway_gateway.observe.telemetry import RequestInfo
from marway_gateway.proto.torchserve import management_pb2, management_pb2_grpc
from marway_gateway.surfaces.grpc.call import DETAILS_MAX
from marway_gateway.surfaces.grpc.interceptors import token_owner
from marway_gateway.surfaces.surface import RpcService
from marway_gateway.surfaces.torchserve.managing.management import Done, Management
from marway_gateway.surfaces.torchserve.managing.parameters import Parameters
from marway_gateway.surfaces.torchserve.managing.refusals import Refused, refusal_of

__all__ = ["MANAGEMENT"]

_SERVICE: Final = management_pb2.DESCRIPTOR.services_by_name["ManagementAPIsService"].full_name
_NAMES: Final = frozenset({"model_name", "model_version"})
_log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class ManagementService(management_pb2_grpc.ManagementAPIsServiceServicer):
    """Serves the calls; an answer's `msg` is what TorchServe writes there: JSON, or the words of a change."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    @cached_property
    def _management(self) -> Management:
        return Management(self._gateway)

    async def DescribeModel(  # noqa: N802  # the names in the .proto
        self, request: management_pb2.DescribeModelRequest, context: Context
    ) -> management_pb2.ManagementResponse:
        given = Parameters({"customized": str(request.customized).lower()})
        return await self._answer(
            "DescribeModel",
            context,
            lambda: self._management.describe(request.model_name, request.model_version or None, given),
        )

    async def ListModels(  # noqa: N802
        self, request: management_pb2.ListModelsRequest, context: Context
    ) -> management_pb2.ManagementResponse:
        given = Parameters.of_message(request)
        return await self._answer("ListModels", context, lambda: self._management.list_models(given))

    async def RegisterModel(  # noqa: N802
        self, request: management_pb2.RegisterModelRequest, context: Context
    ) -> management_pb2.ManagementResponse:
        caller = named_caller(token_owner(), _metadata(context).get("from"))
        given, deadline = Parameters.of_message(request), _deadline(context)
        return await self._answer(
            "RegisterModel",
            context,
            lambda: self._management.register(given, caller, upload=None, synchronous=False, deadline=deadline),
        )

    async def ScaleWorker(  # noqa: N802
        self, request: management_pb2.ScaleWorkerRequest, context: Context
    ) -> management_pb2.ManagementResponse:
        return await self._change("ScaleWorker", request, context, self._management.scale)

    async def SetDefault(  # noqa: N802
        self, request: management_pb2.SetDefaultRequest, context: Context
    ) -> management_pb2.ManagementResponse:
        return await self._change("SetDefault", request, context, self._management.set_default)

    async def UnregisterModel(  # noqa: N802
        self, request: management_pb2.UnregisterModelRequest, context: Context
    ) -> management_pb2.ManagementResponse:
        return await self._change("UnregisterModel", request, context, self._management.unregister)

    async def _change(
        self, method: str, request: Any, context: Context, change: Callable[..., Awaitable[Done]]
    ) -> management_pb2.ManagementResponse:
        """Make a change of a version."""
        caller = named_caller(token_owner(), _metadata(context).get("from"))
        given = Parameters.of_message(request, without=_NAMES)
        return await self._answer(
            method,
            context,
            lambda: change(
                request.model_name, request.model_version or None, given, caller, deadline=_deadline(context)
            ),
        )

    async def _answer(
        self, method: str, context: Context, act: Callable[[], Awaitable[Any]]
    ) -> management_pb2.ManagementResponse:
        """Answer one call, with a line in the access log, or end it with a status and TorchServe's exception."""
        info = RequestInfo(method="POST", path=f"/{_SERVICE}/{method}", ids=read_ids(_metadata(context).get))
        refused: Refused | None = None
        try:
            done = await act()
        except asyncio.CancelledError:
            info.outcome, info.status = "cancelled", grpc.StatusCode.CANCELLED.name
            self._gateway.telemetry.finish(info)
            raise
        except Refused as exc:
            refused = exc
        except MarwayError as exc:
            info.failed(exc)
            refused = refusal_of(exc)
        except Exception:
            fields = {"request_id": info.request_id, "method": method}
            _log.exception("request %s failed unexpectedly", info.request_id, extra={"fields": fields})
            refused = refusal_of(MarwayError(f"something went wrong; the log has it under request {info.request_id}"))
        info.status = (refused.code if refused is not None else grpc.StatusCode.OK).name
        if refused is not None and info.error is None:
            info.outcome, info.error = "client_error" if refused.status < 500 else "unavailable", refused.kind
        self._gateway.telemetry.finish(info)
        if refused is not None:
            details = f"{clip(refused.message, DETAILS_MAX)}\norg.pytorch.serve.http.{refused.kind}"
            await context.abort(refused.code, details)
        words = done.words if isinstance(done, Done) else json.dumps(done, indent=2)
        return management_pb2.ManagementResponse(msg=words)


def _metadata(context: Context) -> dict[str, str]:
    return {str(key): value for key, value in context.invocation_metadata() or () if isinstance(value, str)}


def _deadline(context: Context) -> Deadline | None:
    left_s = cast("float | None", context.time_remaining())  # None without a deadline, whatever the stubs say
    return None if left_s is None else Deadline.after(max(0.0, left_s))


MANAGEMENT: Final = RpcService(
    _SERVICE, management_pb2_grpc.add_ManagementAPIsServiceServicer_to_server, ManagementService
)
