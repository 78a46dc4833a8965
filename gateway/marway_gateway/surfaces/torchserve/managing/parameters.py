"""What a call of the management API is given, read as TorchServe reads it: what is no number counts as not given.

TorchServe says nothing of what it passes over. Here the answer does: nothing is taken and then ignored.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from google.protobuf.message import Message

from marway.errors import clip

__all__ = ["Parameters"]

_SHOWN_MAX: Final = 60
_NOTES_MAX: Final = 20


class Parameters:
    """The parameters of one call, by name.

    Args:
        given: Names and values as a query has them.
    """

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = dict(given)
        self._asked: set[str] = set()
        self._notes: list[str] = []

    @classmethod
    def of_json(cls, document: Mapping[str, Any], query: Mapping[str, str]) -> Parameters:
        """Return those of a JSON body; what it leaves out is taken from the query."""
        written = {
            name: str(value).lower() if isinstance(value, bool) else str(value)
            for name, value in document.items()
            if value is not None
        }
        return cls({**query, **written})

    @classmethod
    def of_message(cls, message: Message, *, without: Collection[str] = ()) -> Parameters:
        """Return the fields of a gRPC message that are set: as in TorchServe, 0, false and "" count as not given.

        Args:
            message: What the call carries.
            without: Fields that are no parameters.
        """
        return cls(
            {
                field.name: str(value).lower() if isinstance(value, bool) else str(value)
                for field, value in message.ListFields()
                if field.name not in without
            }
        )

    def text(self, name: str) -> str | None:
        """Return a value, or None where it is not given."""
        self._asked.add(name)
        return self._given.get(name)

    def number(self, name: str) -> int | None:
        """Return a whole number, or None where none is given."""
        value = self.text(name)
        if not value:
            return None
        try:
            return int(value)
        except ValueError:
            self._notes.append(f"{name} {_shown(value)} is no whole number, and counts as not given")
            return None

    def flag(self, name: str, *, default: bool) -> bool:
        """Return whether it says true; TorchServe takes anything else for false."""
        value = self.text(name)
        if not value:
            return default
        if value.lower() not in ("true", "false"):
            self._notes.append(f"{name} {_shown(value)} is neither true nor false, and counts as false")
        return value.lower() == "true"

    def without_effect(self, **why: str) -> None:
        """Note of each of these that is given that it has no effect here, and why."""
        for name, reason in why.items():
            if self.text(name) is not None:
                self._notes.append(f"{name} has no effect here: {reason}")

    def phrase(self, status: str) -> str:
        """Return the words of an answer, with what of the parameters had no effect."""
        unknown = [f"{_shown(name)} is no parameter of this call" for name in sorted(self._given.keys() - self._asked)]
        notes = (self._notes + unknown)[:_NOTES_MAX]
        return f"{status} ({'; '.join(notes)})" if notes else status


def _shown(text: str) -> str:
    return repr(clip(text, _SHOWN_MAX))
