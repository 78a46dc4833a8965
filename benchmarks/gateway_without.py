"""A gateway with one feature switched off, or traces switched on, to measure what that costs.

`gateway_without.py FEATURE ARGUMENTS…`

The arguments are those of `marway gateway`. What has a setting is switched off by it; the rest has none, for nobody
should run without, and one function of the gateway is replaced here. All that this knows of the gateway's inside
stands in `SEAMS`; a seam that is not there any more is an error, and never a feature that costs nothing.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any


def replace(where: str, name: str, value: Any) -> None:
    """Put a value in the place of a function or method that exists.

    Raises:
        AttributeError: It does not.
    """
    module, _, kind = where.partition(":")
    owner: Any = import_module(module)
    if kind:
        owner = getattr(owner, kind)
    getattr(owner, name)
    setattr(owner, name, value)


def without_ids() -> None:
    """No reading, checking or making of request ids; all requests have the same one."""
    replace("marway.wire.request", "correlation_id", lambda _: None)
    replace("marway.wire.request", "new_request_id", lambda: "off")


def without_metrics() -> None:
    """No counting; the metrics exist and stay at zero."""
    for kind, methods in (("Histogram", ["observe"]), ("Counter", ["inc"]), ("Gauge", ["inc", "dec", "set"])):
        for method in methods:
            replace(f"prometheus_client:{kind}", method, lambda *_, **__: None)
        replace(f"prometheus_client:{kind}", "labels", lambda self, *_, **__: self)


def without_access_log() -> None:
    """A setting of the gateway's own."""
    os.environ["MARWAY_GATEWAY_ACCESS_LOG"] = "false"


def without_trace() -> None:
    """No reading, checking or passing on of a trace context."""
    replace("marway.wire.request", "trace_context", lambda _: None)


def without_auth() -> None:
    """A setting of the gateway's own: without a file of tokens nobody is asked for one."""
    os.environ.pop("MARWAY_GATEWAY_PREDICT_TOKENS_FILE", None)


def with_traces(sampler: str) -> None:
    """A setting of the gateway's own, and OpenTelemetry's; whatever the caller's trace context says."""
    os.environ["MARWAY_GATEWAY_TRACES"], os.environ["OTEL_TRACES_SAMPLER"] = "otlp", sampler


SEAMS: dict[str, Callable[[], None]] = {
    "nothing": lambda: None,
    "request ids": without_ids,
    "metrics": without_metrics,
    "access log": without_access_log,
    "trace context": without_trace,
    "auth": without_auth,
}


ADDED: dict[str, Callable[[], None]] = {
    "unkept traces": lambda: with_traces("always_off"),
    "kept traces": lambda: with_traces("always_on"),
}
"""What is off while everything is on, as it goes to somebody."""


def main() -> int:
    {**SEAMS, **ADDED}[sys.argv[1]]()
    from marway_ops.cli.main import main as marway

    sys.argv = ["marway", "gateway", *sys.argv[2:]]
    marway()
    return 0


if __name__ == "__main__":
    sys.exit(main())
