"""Times as people write them."""

from __future__ import annotations

from datetime import datetime, timezone

from marway.errors import InvalidInput, clip
from marway.serving import period

__all__ = ["moment"]


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
