"""One predict request: what its path, headers and body say, and the row that a handler sees of it, as TorchServe's REST
front end would have built it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import unquote

from marway.errors import BodyTooLarge, UnsupportedMedia, clip
from marway.wire.envelope import FORMS, RAW_BODY, ROWS_CONTENT_TYPE, Part, Row, mime_type
from marway.wire.headers import (
    CLIENT,
    CREDENTIALS,
    DESCRIBE,
    EXPLAIN,
    FRONT_ENDS_OWN,
    HOP_BY_HOP,
    OWN_PREFIX,
    PRIORITIES,
    PRIORITY,
    REQUEST_ID,
    REQUEST_TIMEOUT_MS,
    TRACEPARENT,
    TRACESTATE,
    URL_PATH,
)
from marway.wire.model_run import ModelRun
from marway.wire.request import RequestIds, read_ids
from marway_http.channel import Channel
from marway_sidecar.api.forms import fields_of
from marway_sidecar.scheduler import Job

__all__ = ["Call", "check_body", "holds_rows", "passed_headers", "prediction_at", "row_of"]

_PATHS_MAX: Final = 1024  # most of them of few models
_NOT_PASSED: Final = HOP_BY_HOP | CREDENTIALS | FRONT_ENDS_OWN | {REQUEST_TIMEOUT_MS, TRACEPARENT, TRACESTATE}


class Call:
    """One request: its headers and ids, its client, and how the model server ran it.

    Args:
        headers: Names in lower case.
        named: What the path names: the model, and a version or a label where it has one.
        client: The peer's address, or "".
        channel: Where the answer goes.

    Attributes:
        body: The whole body, where it came before its request was begun.
    """

    __slots__ = ("_batch_rows", "_began", "_queue_s", "body", "channel", "client", "headers", "ids", "named")

    def __init__(
        self, headers: Mapping[str, str], named: tuple[str, str | None], client: str, channel: Channel
    ) -> None:
        self.headers = headers
        self.named = named
        self.client = client
        self.channel = channel
        self.ids = read_ids(headers.get)
        self.body = channel.body
        self._began: float | None = None
        self._queue_s = 0.0
        self._batch_rows = 0

    @property
    def accepted(self) -> bool:
        """Whether the model server was given it."""
        return self._began is not None

    def take_in(self, job: Job) -> None:
        """Take in how the model server ran a job of this request; it may have several, where its rows take several."""
        began = job.started_at
        if began is None:
            return
        if self._began is None or began < self._began:
            self._began, self._queue_s = began, began - job.since
        self._batch_rows = max(self._batch_rows, job.batch_rows)

    def run(self, finite: bool | None = None) -> ModelRun:
        """Return how the model server ran it, up to now; ``finite`` is what is known of its answer's numbers."""
        model_s = 0.0 if self._began is None else time.monotonic() - self._began
        return ModelRun(self._queue_s, model_s, self._batch_rows, finite)

    @property
    def group(self) -> str:
        """Whose turn it is to be in a queue: the group that the caller named, else the caller by a gateway's word."""
        group = self.ids.group_id or self.headers.get(CLIENT)
        return group if group is not None else self.client

    @property
    def priority(self) -> str | None:
        """Why it gives way to all others, by a gateway's word; None where it does not."""
        priority = self.headers.get(PRIORITY)
        return priority if priority in PRIORITIES else None

    @property
    def length(self) -> int | None:
        """Bytes of the body, where they are known."""
        if self.body is not None:
            return len(self.body)
        text = self.headers.get("content-length")
        return int(text) if text is not None else None


@lru_cache(maxsize=_PATHS_MAX)
def prediction_at(path: str) -> tuple[str, str | None] | None:
    """Return the model, and the version or label, that a prediction's path names; None for any other path."""
    match path.split("/", 4):
        case ["", "predict", model] if model:
            return model, None
        case ["", "predict", model, selector] if model and selector:
            return model, selector
    return None


def check_body(call: Call, *, limit: int) -> None:
    """Refuse a body that cannot be served before anything is done for it.

    Raises:
        BodyTooLarge: It has more than ``limit`` bytes, or its client says so.
        UnsupportedMedia: It has a `Content-Encoding`, and would reach the handler compressed: gateways decode what
            clients send.
    """
    length, encoding = call.length, call.headers.get("content-encoding")
    if length is not None and length > limit:
        raise BodyTooLarge(f"the body has {length} bytes; the limit is {limit}: send less at once")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedMedia(f"the Content-Encoding {clip(encoding, 40)!r} is not taken: send the body as it is")


def holds_rows(content_type: str | None) -> bool:
    """Return whether a body of this content type is an envelope of rows."""
    return _kind_of(content_type) == ROWS_CONTENT_TYPE


def row_of(headers: Mapping[str, str], body: bytes, ids: RequestIds) -> Row:
    """Return the row for a request: the raw body under `data`, or each field of a form under its name.

    A large form takes a while: not on the event loop. Names of ``headers`` are in lower case.

    Raises:
        InvalidRequest: A form that cannot be read or has too many fields, or an input name that is kept for Marway.
    """
    content_type = headers.get("content-type")
    kind = _kind_of(content_type)
    parts = [Part(RAW_BODY, body, content_type)]
    if kind in FORMS and content_type is not None:
        parts = fields_of(kind, content_type, body) or parts
    return Row(ids.request_id, parts, passed_headers(headers, ids))


@lru_cache(maxsize=256)
def _kind_of(content_type: str | None) -> str:
    return mime_type(content_type).lower()


def passed_headers(headers: Mapping[str, str], ids: RequestIds) -> dict[str, str]:
    """Return the request's headers that a handler may see, names in lower case."""
    passed = {
        name: value for name, value in headers.items() if name not in _NOT_PASSED and not name.startswith(OWN_PREFIX)
    }
    passed[REQUEST_ID] = ids.request_id
    if ids.traceparent is not None:
        passed[TRACEPARENT] = ids.traceparent
    if ids.tracestate is not None:
        passed[TRACESTATE] = ids.tracestate
    if headers.get(EXPLAIN) == "1":
        passed["explain"] = "True"
    if headers.get(DESCRIBE) == "1":
        passed["describe"] = "True"
    if URL_PATH in headers:
        passed["url_path"] = unquote(headers[URL_PATH])
    return passed
