"""HTTP header names, lower case as ASGI gives them; and what status and headers a handler may set.

What every hop on the way to a client carries may be set, and it is checked where an answer is made, in the worker and
in the sidecar, so that what cannot be sent is one request's fault: further on, the headers of many requests share a
connection. Standard library only: workers of TorchServe run this too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

__all__ = [
    "CACHE",
    "CLIENT",
    "CONTENT_TYPE_CHARS_MAX",
    "CREDENTIALS",
    "DESCRIBE",
    "EXPLAIN",
    "FALLBACK",
    "FRONT_ENDS_OWN",
    "GRAPH",
    "HEADERS_MAX",
    "HEADER_BYTES_MAX",
    "HOP_BY_HOP",
    "JSON_NONFINITE",
    "MODEL_ID",
    "MODEL_NAME",
    "MODEL_VERSION",
    "NONFINITE",
    "NOTHING",
    "OUTCOME",
    "OWN_PREFIX",
    "PREDICTION_ID",
    "PRIORITIES",
    "PRIORITY",
    "READY_ONLY",
    "REQUEST_GROUP_ID",
    "REQUEST_ID",
    "REQUEST_TIMEOUT_MS",
    "RETRY_AFTER",
    "RUN",
    "SEQUENCE_END",
    "SEQUENCE_ID",
    "SEQUENCE_START",
    "SEQUENCE_WORKER",
    "SERVER_TIMING",
    "STREAM",
    "TIMED",
    "TRACEPARENT",
    "TRACESTATE",
    "TRAFFIC",
    "UNEXPLAINED",
    "URL_PATH",
    "Outcome",
    "content_type_fault",
    "header_fault",
    "is_incidental",
    "status_fault",
]

REQUEST_ID: Final = "x-request-id"
"""In and out: the caller's, or made where the request enters."""
REQUEST_GROUP_ID: Final = "x-request-group-id"
PREDICTION_ID: Final = "x-prediction-id"
"""Out of a gateway: which prediction an answer is, as feedback names it; see `marway_gateway.observe.prediction_id`."""
REQUEST_TIMEOUT_MS: Final = "x-request-timeout-ms"
"""In: milliseconds left for the whole request. A gateway passes on what is left of it."""
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
CLIENT: Final = "x-marway-client"
"""From a gateway to a sidecar: whose request it is, so that callers behind one gateway take turns in a queue."""
EXPLAIN: Final = "x-marway-explain"
"""From a gateway to a sidecar: `1` asks the handler to explain its prediction, as TorchServe's `/explanations` does."""
DESCRIBE: Final = "x-marway-describe"
"""From a gateway to a sidecar: `1` asks the handler to describe its model, as TorchServe's `?customized=true` does."""
STREAM: Final = "x-marway-stream"
"""From a gateway to a sidecar: `1` asks for this one answer in pieces, whatever the version's serving settings say."""
PRIORITY: Final = "x-marway-priority"
"""From a gateway to a sidecar: which request gives way to all others, as one of `PRIORITIES`. Callers of a gateway may
ask for `batch` by it."""
PRIORITIES: Final = frozenset({"shadow", "batch"})
"""`shadow` is a copy whose answer nobody waits for: it is refused where the version is not ready. `batch` waits for a
load as any request does."""
URL_PATH: Final = "x-marway-url-path"
"""From a gateway to a sidecar: what stands behind the version in the caller's path, percent-encoded; `url_path` to
handlers, as TorchServe calls it."""
NOTHING: Final = "x-marway-nothing"
"""From a gateway to a sidecar: `1` says that a body without a byte is meant so, as TorchServe's clients may send it."""
READY_ONLY: Final = "x-marway-ready-only"
"""From a gateway to a sidecar: `1` says that a request is for a pod that has the version ready, and is placed elsewhere
rather than wait for a load: a candidate's."""
OWN_PREFIX: Final = "x-marway-"
"""How headers between Marway's parts begin; a caller's own that begin so go nowhere."""
SEQUENCE_ID: Final = "ts_request_sequence_id"
"""Which sequence a request is of, as TorchServe's clients and handlers call it; see `marway.archives.sequences`."""
SEQUENCE_START: Final = "ts_request_sequence_start"
"""`true` begins the sequence anew, `false` goes on with one that is there; without it, it begins where there is none.
Handlers find `true` with the request that begins it, and nothing otherwise."""
SEQUENCE_END: Final = "ts_request_sequence_end"
"""`true` with a request ends its sequence once that is answered; a handler ends those that it names in its answer."""
SEQUENCE_WORKER: Final = "x-marway-sequence-worker"
"""Between a sidecar and a worker, with a row: the worker that has the sequence's state, empty where it begins; with an
answer the one that has it now, or `lost` where that is another than the one that was asked."""
MODEL_NAME: Final = "x-model-name"
MODEL_VERSION: Final = "x-model-version"
MODEL_ID: Final = "x-model-id"
JSON_NONFINITE: Final = "x-marway-json-nonfinite"
"""From a sidecar to a worker, with a row: what becomes of numbers in its answer that JSON has not; see
`marway.answers.encoding.Nonfinite`. Without it the answer is refused."""
TIMED: Final = "x-marway-timed"
"""From a sidecar to a worker, with a row that is traced: how long the handler's steps take is wanted. `1`."""
NONFINITE: Final = "x-marway-nonfinite"
"""From a handler to the sidecar, which counts it: the answer held a number that is not finite. Any value."""
UNEXPLAINED: Final = "x-marway-unexplained"
"""From a worker, with its answer to a row that was to be explained: the handler never looked at that. Any value."""
CACHE: Final = "x-cache"
"""Out of a gateway: hit, miss or bypass, for models whose answers may be given again."""
TRAFFIC: Final = "x-marway-traffic"
"""Out of a gateway: base or candidate, while the label that was asked for is divided between two versions."""
FALLBACK: Final = "x-marway-fallback"
"""Out of a gateway: `MODEL/VERSION` that was asked in the place of the one that had no room, or was too slow."""
GRAPH: Final = "x-marway-graph"
"""Out of a gateway: `NODE=failed` and `NODE=fallback` for nodes of a graph that failed without failing it."""
SERVER_TIMING: Final = "server-timing"
RETRY_AFTER: Final = "retry-after"

OUTCOME: Final = "x-marway-outcome"
"""Out of a sidecar only: who made this answer, as one of `Outcome`."""

RUN: Final = "x-marway-run"
"""Out of a sidecar only: how the model server ran the request, as `marway.wire.model_run.ModelRun` writes it; left out
where it was not given it."""


class Outcome:
    """Values of the `OUTCOME` header: how far the request came, and so what a gateway may do about it."""

    ANSWERED: Final = "answered"
    """The model's own answer, whatever its status: pass it on as it is."""
    MODEL_ERROR: Final = "model_error"
    """The model's code failed on this request: the request's own fault, never tried again."""
    NOT_ACCEPTED: Final = "not_accepted"
    """The pod did not start on the request: place it again, outside the retry budget."""
    REFUSED: Final = "refused"
    """The pod found the request wrong (unknown model, too large, no body): never tried again."""
    RUNTIME_DOWN: Final = "runtime_down"
    """The model server is gone; the request may have been running. Eject the pod, retry within the budget."""
    WORKER_DIED: Final = "worker_died"
    """The worker died with the request in it: try it once more in all, anywhere; the pod itself is well."""
    FAILED: Final = "failed"
    """Anything else that went wrong in the pod after it took the request."""


HOP_BY_HOP: Final = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that belong to one connection and are never passed on (RFC 9110 §7.6.1)."""
CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization"})
"""For whoever stands in front of the model, whether or not Marway wants tokens itself: handlers never see them."""
FRONT_ENDS_OWN: Final = frozenset({"describe", "explain", "url_path"})
"""Headers by which TorchServe's front end tells handlers what kind of call it is: never the caller's to set."""
_INCIDENTAL: Final = frozenset(
    {
        "accept-encoding",
        "baggage",
        "cache-control",
        "dnt",
        "forwarded",
        "pragma",
        "priority",
        "referer",
        "user-agent",
        "via",
        "x-real-ip",
    }
)
_INCIDENTAL_PREFIXES: Final = ("sec-", "x-b3-", "x-envoy-", "x-forwarded-")

HEADERS_MAX: Final = 64
"""Most headers of an answer; with our own, fewer than the 100 after which Python's `http.client` reads no answer."""
HEADER_BYTES_MAX: Final = 16 * 1024
"""Most bytes of them, names and values together; proxies take 4 KiB to 16 KiB by default."""
CONTENT_TYPE_CHARS_MAX: Final = 1024
# Tokens, and values that HTTP can carry (RFC 9110 §5.1 and §5.5), without the control characters of Latin-1.
_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
_VALUE: Final = re.compile(r"[\t\x20-\x7e\xa0-\xff]*")
_SHOWN: Final = 60


def is_incidental(name: str) -> bool:
    """Return whether a header, its name in lower case, says which program asks and by what way, not what it wants."""
    return name in _INCIDENTAL or name.startswith(_INCIDENTAL_PREFIXES)


def header_fault(headers: Mapping[str, str]) -> str | None:
    """Return why a handler's headers cannot be sent, None when they can."""
    if len(headers) > HEADERS_MAX:
        return f"the handler set {len(headers)} response headers: {HEADERS_MAX} at most can be sent"
    size = 0
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            return f"the handler set a response header whose name HTTP cannot carry: {_shown(name)}"
        if not _VALUE.fullmatch(value):
            return f"the handler set the response header {_shown(name)} to what HTTP cannot carry: {_shown(value)}"
        size += len(name) + len(value)
    if size > HEADER_BYTES_MAX:
        return f"the handler set response headers of {size} bytes: {HEADER_BYTES_MAX} at most can be sent"
    return None


@lru_cache(maxsize=64)
def content_type_fault(content_type: str | None) -> str | None:
    """Return why a handler's content type cannot be sent, None when it can, or when there is none."""
    if content_type and not (len(content_type) <= CONTENT_TYPE_CHARS_MAX and _VALUE.fullmatch(content_type)):
        return f"the handler set a content type that cannot be sent: {_shown(content_type)}"
    return None


@lru_cache(maxsize=64)
def status_fault(status: int) -> str | None:
    """Return why a handler's status cannot be sent, None when it can."""
    if not 200 <= status <= 599:
        return f"the handler set the status {status}: an answer has one from 200 to 599"
    return None


def _shown(text: str) -> str:
    return ascii(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
