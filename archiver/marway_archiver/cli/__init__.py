"""The archiver's verbs; each module here adds its own."""

from __future__ import annotations

import typer

from marway_archiver.cli import diff, inspect, pack, publish, verify

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the archiver's verbs to the `marway` command."""
    pack.register(app)
    inspect.register(app)
    publish.register(app)
    diff.register(app)
    verify.register(app)
