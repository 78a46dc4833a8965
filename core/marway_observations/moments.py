"""From when on a prediction is looked for by its id."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from marway.serving import moment
from marway_observations.layout import made_at

__all__ = ["CLOCKS", "SINCE_OF_ID", "since_of_id"]

CLOCKS: Final = timedelta(minutes=5)
"""By so much may clocks of other machines be ahead of ours, and one's ids before another's rows."""
SINCE_OF_ID: Final = "7d"
"""How far back an id is looked for that does not say when it was made."""


def since_of_id(id_: str, now: datetime) -> datetime:
    """Return from when on to look for an id: one that Marway made says when that was."""
    try:
        return made_at(id_) - CLOCKS
    except ValueError:
        return moment(SINCE_OF_ID, now)
