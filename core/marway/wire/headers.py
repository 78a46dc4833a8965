"""HTTP header names. Lower case, as ASGI gives them."""

from __future__ import annotations

from typing import Final

__all__ = [
    "CACHE",
    "CLIENT",
    "CREDENTIALS",
    "EXPLAIN",
    "FRONT_ENDS_OWN",
    "HOP_BY_HOP",
    "JSON_NONFINITE",
    "MODEL_ID",
    "MODEL_NAME",
    "MODEL_VERSION",
    "NONFINITE",
    "NOTHING",
    "OUTCOME",
    "OWN_PREFIX",
    "REQUEST_GROUP_ID",
    "REQUEST_ID",
    "REQUEST_TIMEOUT_MS",
    "RETRY_AFTER",
    "SERVER_TIMING",
    "TRACEPARENT",
    "TRACESTATE",
    "UNEXPLAINED",
    "URL_PATH",
    "Outcome",
    "is_incidental",
]

REQUEST_ID: Final = "x-request-id"
"""In and out: the caller's, or made where the request enters."""
REQUEST_GROUP_ID: Final = "x-request-group-id"
REQUEST_TIMEOUT_MS: Final = "x-request-timeout-ms"
"""In: milliseconds left for the whole request. A gateway passes on what is left of it."""
TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
CLIENT: Final = "x-marway-client"
"""From a gateway to a sidecar: whose request it is, so that callers behind one gateway take turns in a queue."""
EXPLAIN: Final = "x-marway-explain"
"""From a gateway to a sidecar: `1` asks the handler to explain its prediction, as TorchServe's `/explanations` does."""
URL_PATH: Final = "x-marway-url-path"
"""From a gateway to a sidecar: what stands behind the version in the caller's path, percent-encoded; `url_path` to
handlers, as TorchServe calls it."""
NOTHING: Final = "x-marway-nothing"
"""From a gateway to a sidecar: `1` says that a body without a byte is meant so, as TorchServe's clients may send it."""
OWN_PREFIX: Final = "x-marway-"
"""How headers between Marway's parts begin; a caller's own that begin so go nowhere."""
MODEL_NAME: Final = "x-model-name"
MODEL_VERSION: Final = "x-model-version"
MODEL_ID: Final = "x-model-id"
JSON_NONFINITE: Final = "x-marway-json-nonfinite"
"""From a sidecar to a worker, with a row: what becomes of numbers in its answer that JSON has not; see
`marway.answers.encoding.Nonfinite`. Without it the answer is refused."""
NONFINITE: Final = "x-marway-nonfinite"
"""From a handler to the sidecar, which counts it: the answer held a number that is not finite. Any value."""
UNEXPLAINED: Final = "x-marway-unexplained"
"""From a worker, with its answer to a row that was to be explained: the handler never looked at that. Any value."""
CACHE: Final = "x-cache"
"""Out of a gateway: hit, miss or bypass, for models whose answers may be given again."""
SERVER_TIMING: Final = "server-timing"
RETRY_AFTER: Final = "retry-after"

OUTCOME: Final = "x-marway-outcome"
"""Out of a sidecar only: who made this answer, as one of `Outcome`."""


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
FRONT_ENDS_OWN: Final = frozenset({"explain", "url_path"})
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


def is_incidental(name: str) -> bool:
    """Return whether a header, its name in lower case, says which program asks and by what way, not what it wants."""
    return name in _INCIDENTAL or name.startswith(_INCIDENTAL_PREFIXES)
