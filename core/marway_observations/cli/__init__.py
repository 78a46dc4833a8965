"""The verbs of observations: each imports what needs the extra `observations` only when it runs."""

from __future__ import annotations

from collections.abc import Callable

import typer

from marway_observations.cli.drift import drift
from marway_observations.cli.events import events
from marway_observations.cli.observations import observations
from marway_observations.cli.quality import quality
from marway_observations.cli.replay import replay
from marway_observations.cli.why import why

__all__ = ["register"]

_VERBS: tuple[Callable[..., None], ...] = (
    drift,
    events,
    observations,
    quality,
    replay,
    why,
)  # fmt: skip


def register(app: typer.Typer) -> None:
    """Add the verbs to the one command."""
    for verb in _VERBS:
        app.command()(verb)
