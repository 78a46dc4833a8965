"""Times at which a label does not move, by the wall clock of a time zone: each week, or once."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from marway.errors import InvalidInput, clip

__all__ = ["Freeze", "check_freeze"]

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_DAY: Final = rf"(?P<{{0}}_day>{'|'.join(_DAYS)}) (?P<{{0}}_time>[0-9]{{{{2}}}}:[0-9]{{{{2}}}})"
_DATE: Final = r"(?P<{0}_date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}) (?P<{0}_time>[0-9]{{2}}:[0-9]{{2}})"
_ZONE: Final = r" (?P<zone>[A-Za-z0-9_+/-]{1,64})"
_WEEKLY: Final = re.compile(f"{_DAY.format('from')} ?- ?{_DAY.format('to')}{_ZONE}")
_ONCE: Final = re.compile(f"{_DATE.format('from')} ?- ?{_DATE.format('to')}{_ZONE}")
_WEEK: Final = timedelta(days=7)


class Freeze(NamedTuple):
    """A time at which a label does not move, by the wall clock of a time zone.

    Attributes:
        text: As it was given.
        begins, ends: Of a window of dates, the first minute and the one after the last; of a weekly one, the time from
            Monday 00:00.
        zone: The time zone.
    """

    text: str
    begins: datetime | timedelta
    ends: datetime | timedelta
    zone: ZoneInfo

    @classmethod
    def parsed(cls, text: str) -> Freeze:
        """Return the window that ``Fri 16:00-Mon 08:00 Europe/Berlin`` or two dates in place of the days describe.

        Raises:
            InvalidInput: It is none, or names a time zone that is not known here.
        """
        if found := _WEEKLY.fullmatch(text):
            zone = _zone(found["zone"], text)
            begins, ends = (_in_week(found[f"{end}_day"], found[f"{end}_time"], text) for end in ("from", "to"))
            if begins == ends:
                raise InvalidInput(f"freeze window {text!r} ends when it begins: give it another end")
            return cls(text, begins, ends, zone)
        if found := _ONCE.fullmatch(text):
            zone = _zone(found["zone"], text)
            first, last = (_at(f"{found[f'{end}_date']} {found[f'{end}_time']}", zone, text) for end in ("from", "to"))
            if last <= first:
                raise InvalidInput(f"freeze window {text!r} ends before it begins: give it a later end")
            return cls(text, first, last, zone)
        raise InvalidInput(
            f"{clip(text, 80)!r} is no freeze window: write 'Fri 16:00-Mon 08:00 Europe/Berlin' for each week, or "
            "'2026-12-20 00:00-2027-01-02 08:00 Europe/Berlin' for once"
        )

    def until(self, now: datetime) -> datetime | None:
        """Return when the window that ``now`` lies in ends, or None where it lies in none."""
        here = now.astimezone(self.zone)
        if isinstance(self.begins, datetime):
            assert isinstance(self.ends, datetime)
            return self.ends if self.begins <= here < self.ends else None
        assert isinstance(self.ends, timedelta)
        # By the wall clock: a window keeps its hours when summer time begins or ends within it.
        monday = here.replace(tzinfo=None, hour=0, minute=0, second=0, microsecond=0) - timedelta(days=here.weekday())
        since = here.replace(tzinfo=None) - monday
        begins, ends = self.begins, self.ends
        if begins < ends:
            inside = begins <= since < ends
        else:  # over the week's end
            inside = since >= begins or since < ends
            ends += _WEEK if since >= begins else timedelta(0)
        return (monday + ends).replace(tzinfo=self.zone) if inside else None


def _zone(name: str, text: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise InvalidInput(
            f"freeze window {clip(text, 80)!r}: no time zone {name!r} is known here: use a name such as Europe/Berlin "
            "or UTC; where that should be known, install the Python package tzdata"
        ) from exc


def _at(written: str, zone: ZoneInfo, text: str) -> datetime:
    try:
        return datetime.strptime(written, "%Y-%m-%d %H:%M").replace(tzinfo=zone)
    except ValueError as exc:
        raise InvalidInput(f"freeze window {clip(text, 80)!r}: there is no {written}") from exc


def _in_week(day: str, clock: str, text: str) -> timedelta:
    hours, minutes = (int(part) for part in clock.split(":"))
    if hours > 23 or minutes > 59:
        raise InvalidInput(f"freeze window {clip(text, 80)!r}: there is no time {clock}")
    return timedelta(days=_DAYS.index(day), hours=hours, minutes=minutes)


def check_freeze(text: str) -> str:
    """Return ``text`` if it is a freeze window, else raise `InvalidInput`."""
    return Freeze.parsed(text).text
