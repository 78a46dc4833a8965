"""Whether an answer has other fields than the base's have: by what the base's answers were seen to have so far.

Two answers to one input do not tell that. A field may be there for some inputs only, and keys of an object may be
values, such as the five most likely classes.
"""

from __future__ import annotations

import re
from typing import Final

from marway.answers.fields import Fields, field_changes
from marway_gateway.traffic.shadow.comparing import Compared

__all__ = ["BaseShape"]

_LEARNED: Final = 10
"""Answers of the base before which no difference counts."""
_EACH: Final = 300
_THEN_EVERY: Final = 10
"""Answers that are learned from each, and which of the others are: looking into them costs."""
_OF_FIELDS: Final = re.compile(r" is (?:gone|new)$| was (?:boolean|number|string|list|object) and is ")
"""A difference of fields, which `field_changes` knows better: not one of kinds, content types, or datatypes."""


class BaseShape:
    """The fields and types of the base's answers, as far as they were seen."""

    def __init__(self) -> None:
        self._fields = Fields()
        self._seen = 0

    def differs(self, compared: Compared) -> bool | None:
        """Take in two answers; return whether the version's has another shape, None where that is not known yet."""
        before, after = compared.base_fields, compared.candidate_fields
        if before is None or after is None:
            return None
        differs: bool | None = False
        if compared.shape is not None and self._seen < _LEARNED:
            differs = None
        elif compared.shape is not None:
            # What the base itself does for the first time with this very input says nothing of the version.
            of_fields = _OF_FIELDS.search(compared.shape) is not None
            differs = not of_fields or bool(self._changes(after) - self._changes(before))
        if self._seen < _EACH or not self._seen % _THEN_EVERY:
            self._fields.merge(before)
        self._seen += 1
        return differs

    def _changes(self, fields: Fields) -> set[tuple[str, str]]:
        """Return how an answer differs from all that were seen."""
        changes = {(each.field, each.change) for each in field_changes(self._fields, fields)}
        return changes | {(name, "added") for name in self._fields.never_seen(fields)}
