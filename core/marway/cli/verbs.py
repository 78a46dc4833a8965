"""Core's own verbs, which work in the bare install."""

from __future__ import annotations

import typer

from marway.cli import delete, doctor, gc, history, load, logs, models, pods, predict, rollback, serving, show, up

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add core's verbs to the command."""
    for verb in (up, predict, models, show, history, rollback, serving, pods, load, delete, gc, logs, doctor):
        verb.register(app)
