"""The verbs `marway dev` and `marway new`."""

from __future__ import annotations

import typer

from marway_dev.dev import dev
from marway_dev.new import new

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verbs to the `marway` command."""
    app.command("dev")(dev)
    app.command("new")(new)
