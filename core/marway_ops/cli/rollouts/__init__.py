"""`marway rollout`: a label goes to another version step by step, and comes back by itself."""

from __future__ import annotations

import typer

from marway_ops.cli.rollouts.standing import status
from marway_ops.cli.rollouts.starting import start
from marway_ops.cli.rollouts.steering import abort, pause, promote, resume
from marway_ops.cli.rollouts.watching import watch

__all__ = ["rollout"]

rollout = typer.Typer(
    name="rollout",
    help="Move a label to another version step by step; a version that is worse leaves by itself.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
for _verb in (start, status, watch, promote, abort, pause, resume):
    rollout.command()(_verb)
