"""Options that several verbs of observations share."""

from __future__ import annotations

from typing import Annotated

import typer

from marway_observations.layout import OBSERVATIONS_ENV

__all__ = ["ObservationsOption"]

ObservationsOption = Annotated[
    str | None,
    typer.Option(
        "--observations",
        metavar="URL",
        help=f"Store of observations and feedback; else ${OBSERVATIONS_ENV}, else the registry.",
    ),
]
