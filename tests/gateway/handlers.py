"""Handlers for fake pods: what a pod's workers would do with the rows of a request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from gateway.fakes import Behaviour, FakePod, Running
from marway.records import Signature, TensorSpec
from marway.wire.envelope import ROWS_CONTENT_TYPE, Answer, Part, Row, decode_rows, encode_answers
from marway.wire.headers import OUTCOME, Outcome

Handler = Callable[[Row], Answer]

TWO = Signature(
    inputs=(
        TensorSpec(name="text", datatype="BYTES", shape=(-1,)),
        TensorSpec(name="top", datatype="INT32", shape=(-1, 2)),
    ),
    outputs=(
        TensorSpec(name="text", datatype="BYTES", shape=(-1,)),
        TensorSpec(name="top", datatype="INT64", shape=(-1, 2)),
    ),
)
TEXT = Signature(
    inputs=(TensorSpec(name="text", datatype="BYTES", shape=(-1,)),),
    outputs=(TensorSpec(name="prediction", datatype="BYTES", shape=(-1,)),),
)


def handling(handler: Handler, *, seen: list[Row] | None = None) -> Behaviour:
    """Answer a request of many rows as a sidecar does whose handler is ``handler``; ``seen`` collects the rows."""

    async def behave(pod: FakePod, request: web.Request) -> web.StreamResponse:
        assert request.headers["content-type"] == ROWS_CONTENT_TYPE
        rows = decode_rows(pod.requests[-1].body)
        if seen is not None:
            seen.extend(rows)
        return web.Response(
            body=encode_answers([handler(row) for row in rows]),
            headers={"content-type": ROWS_CONTENT_TYPE, OUTCOME: Outcome.ANSWERED},
        )

    return behave


def value_of(part: Part) -> Any:
    """Return what a worker makes of a part: JSON parsed, text as str, anything else as bytes."""
    if part.content_type == "application/json":
        return json.loads(part.value)
    if (part.content_type or "").startswith("text/"):
        return part.value.decode()
    return part.value


def answered(value: Any, *, status: int = 200) -> Answer:
    """Return a handler's return value as a worker encodes it."""
    if isinstance(value, bytes):
        return Answer(status, value, "bytes")
    if isinstance(value, str):
        return Answer(status, value.encode(), "text")
    return Answer(status, json.dumps(value).encode(), "json")


def echo(row: Row) -> Answer:
    """Give back the one value of a row, or all of several by name."""
    values = {part.name: value_of(part) for part in row.parts}
    if row.is_raw:
        return answered(values["data"])
    return answered(
        {name: value.decode("latin-1") if isinstance(value, bytes) else value for name, value in values.items()}
    )


def refusing(row: Row) -> Answer:
    """Refuse what says so, else give back what came."""
    if row.is_raw and (value := value_of(row.parts[0])) == "refuse":
        return answered({"error": f"no {value}"}, status=422)
    return echo(row)


async def ready(gateway: Running) -> None:
    """Return once the gateway has heard from a pod."""
    async with asyncio.timeout(10):
        while (await gateway.client.get("/readyz")).status_code != 200:
            await asyncio.sleep(0.01)
