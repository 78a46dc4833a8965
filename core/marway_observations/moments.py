"""Times as people write them, and from when on a prediction is looked for by its id."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Final

from marway.errors import InvalidInput, clip
from marway.serving import period
from marway_observations.layout import made_at

__all__ = ["CLOCKS", "SINCE_OF_ID", "moment", "since_of_id"]

CLOCKS: Final = timedelta(minutes=5)
"""By so much may clocks of other machines be ahead of ours, and one's ids before another's rows."""
SINCE_OF_ID: Final = "7d"
"""How far back an id is looked for that does not say when it was made."""


def moment(text: str, now: datetime) -> datetime:
    """Return the time that `24h` (so long ago) or a time in ISO 8601 stands for; without a zone it is in UTC.

    Raises:
        InvalidInput: It is neither.
    """
    try:
        return now - period(text)
    except ValueError:
        pass
    except OverflowError:
        raise InvalidInput(f"{clip(text, 40)!r} ago is before all times") from None
    try:
        at = datetime.fromisoformat(text.removesuffix("Z") + ("+00:00" if text.endswith("Z") else ""))
    except ValueError:
        raise InvalidInput(
            f"{clip(text, 40)!r} is no time: give how long ago, such as 24h or 7d, or a time such as 2026-03-04T12:00"
        ) from None
    return at.replace(tzinfo=timezone.utc) if at.tzinfo is None else at


def since_of_id(id_: str, now: datetime) -> datetime:
    """Return from when on to look for an id: one that Marway made says when that was."""
    try:
        return made_at(id_) - CLOCKS
    except ValueError:
        return moment(SINCE_OF_ID, now)
