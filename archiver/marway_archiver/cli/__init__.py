"""The archiver's verbs."""

from __future__ import annotations

import typer

from marway_archiver.cli.adopt import adopt
from marway_archiver.cli.compare import compare
from marway_archiver.cli.diff import diff
from marway_archiver.cli.graph import graph
from marway_archiver.cli.inspect import inspect
from marway_archiver.cli.pack import pack_model
from marway_archiver.cli.publish import publish, release
from marway_archiver.cli.table import table
from marway_archiver.cli.verify import verify

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the archiver's verbs to the `marway` command."""
    app.command("pack")(pack_model)
    for verb in (inspect, publish, release, diff, verify, compare, adopt):
        app.command(verb.__name__)(verb)
    app.add_typer(graph)
    app.add_typer(table)
