"""What a version's handler printed, logged and raised on this pod: `GET /models/{model}/{version or label}/log`."""

from __future__ import annotations

import asyncio
from pathlib import Path as FilePath
from typing import Annotated, Final

from fastapi import FastAPI, Path, Query

from marway import errors
from marway.records import VersionRecord
from marway.refs import server_name
from marway.wire import model_log
from marway.wire.pods import HandlerLine, HandlerLines
from marway.wire.runtime import LOGS
from marway_sidecar.api.openapi import problems
from marway_sidecar.sidecar import Sidecar

__all__ = ["add_log_route"]

_LAST_BYTES: Final = 4 * 1024 * 1024
"""Read of each of the two files, which all handlers of a pod share: what they wrote last."""
_LINES_MAX: Final = 1000

Model = Annotated[str, Path(description="A model's name, or a model id.", examples=["intent"])]
VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["PROD", "1.0"])]
RequestId = Annotated[
    str | None, Query(alias="request", max_length=128, description="Only what was written while it was answered.")
]
Limit = Annotated[int, Query(alias="lines", ge=1, le=_LINES_MAX, description="At most so many, the newest.")]


def add_log_route(app: FastAPI, sidecar: Sidecar) -> None:
    """Add the route. A model server that is not Marway's runtime has its own log, and no lines here."""

    @app.get(
        "/models/{model}/{selector}/log",
        tags=["models"],
        summary="What its handler printed, logged and raised here",
        responses=problems(
            *(errors.InvalidReference, errors.ModelNotFound, errors.VersionNotFound, errors.LabelNotFound),
            errors.RegistryUnavailable,
        ),
    )
    async def handler_lines(
        model: Model, selector: VersionOrLabel, request_id: RequestId = None, limit: Limit = 200
    ) -> HandlerLines:
        record = (await sidecar.resolver.resolve(model, selector)).record
        return await asyncio.to_thread(_read, sidecar.settings.runtime_dir / LOGS, record, request_id, limit)


def _read(logs: FilePath, record: VersionRecord, request_id: str | None, limit: int) -> HandlerLines:
    """Read the newest lines. Blocks."""
    worker = f"{server_name(record.id)}_{record.version}"
    found = model_log.read(logs, [worker], last_bytes=_LAST_BYTES)
    wanted = [each for each in found if request_id is None or each.is_about(request_id)]
    return HandlerLines(
        lines=tuple(
            HandlerLine(
                at=each.at,
                level=each.level,
                text=each.text,
                worker=each.port,
                request_ids=each.request_ids,
                traceback=each.traceback,
                reason=each.reason,
                logger=each.logger,
            )
            for each in wanted[-limit:]
        )
    )
