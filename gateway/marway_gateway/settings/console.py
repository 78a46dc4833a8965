"""The console."""

from __future__ import annotations

from marway.settings import ComponentSettings

__all__ = ["ConsoleSettings"]


class ConsoleSettings(ComponentSettings):
    """The console."""

    console: bool = True
    """Whether the admin port has the console: pages for people, at `/` and below `/console/`. On, as it does nothing
    that the admin port's routes do not; off, `/` says what the port is and nothing is below `/console/`."""
