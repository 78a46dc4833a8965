"""The parts of a sidecar that tell of what they do, where traces are on; else those that do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from marway_http.traces import open_traces
from marway_sidecar.api.predict import Predictor
from marway_sidecar.backends.base import ModelServer
from marway_sidecar.lifecycle.transitions import LoadListener
from marway_sidecar.settings import SidecarSettings

__all__ = ["Traced", "opened"]

Attach = Callable[[ModelServer | None], None]


@dataclass(frozen=True, slots=True)
class Traced:
    """What depends on whether traces are on.

    Attributes:
        predictor: Makes what answers predictions.
        attach: Returns what attaches a model server, given what does so without traces.
        load_ended: Called at the end of each load.
        close: Sends what spans wait; it blocks for two seconds at most.
    """

    predictor: Callable[..., Predictor] = Predictor
    attach: Callable[[Attach], Attach] = lambda attach: attach
    load_ended: LoadListener | None = None
    close: Callable[[], None] = lambda: None


def opened(settings: SidecarSettings, *, by_runtime: bool) -> Traced:
    """Return what there is by the setting `traces`.

    Args:
        settings: All of them.
        by_runtime: Whether Marway's runtime starts the model server, whose workers then time their handlers' steps.

    Raises:
        InvalidSettings: They are on, and OpenTelemetry is not installed or its variables cannot be used.
    """
    traces = open_traces(settings.traces, service="marway-sidecar", instance=settings.name)
    if traces is None:
        return Traced()
    # OpenTelemetry is an extra.
    from marway_sidecar.traces.spans import LoadTraces, TracedPredictor, traced_server

    def attaching(attach: Attach) -> Attach:
        return lambda server: attach(None if server is None else traced_server(server, traces, steps=by_runtime))

    load_ended = LoadTraces(traces, settings.name).ended
    return Traced(partial(TracedPredictor, traces=traces), attaching, load_ended, traces.close)
