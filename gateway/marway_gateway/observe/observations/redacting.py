"""Takes out of a row what is not to be kept (`observe_redact`), before it waits with others to be written."""

from __future__ import annotations

from typing import Final

from marway.redaction import Side, redaction_of
from marway.wire.headers import REQUEST_GROUP_ID, REQUEST_ID
from marway_gateway.observe.observations.rows import ROW, Row

__all__ = ["redacted"]

_PLACE: Final = {name: place for place, name in enumerate(ROW)}
_OF_HEADERS: Final = {
    REQUEST_ID: ("request_id",),
    REQUEST_GROUP_ID: ("group_id",),
    "content-type": ("input_type", "output_type"),
}
"""Headers of which something is kept, and as what; of all others nothing is."""
_SIDES: Final[tuple[Side, ...]] = ("input", "output")


def redacted(row: Row) -> Row:
    """Return a row without what its model's serving settings take out."""
    redaction, left = redaction_of(row[_PLACE["redact"]]), list(row)
    withheld = False
    for side in _SIDES:
        body = row[_PLACE[side]]
        if body is None:
            continue
        kept = None
        if side == "input" or row[_PLACE["outcome"]] == "ok" or redaction.keeps_errors:
            kept = redaction.body(side, body, row[_PLACE[f"{side}_type"]])
        left[_PLACE[side]] = kept
        withheld = withheld or kept is None
    if withheld:
        left[_PLACE["bodies"]] = "not_redactable"
    for header in redaction.headers:
        for name in _OF_HEADERS.get(header, ()):
            left[_PLACE[name]] = None
    if redaction.client:
        left[_PLACE["client"]] = None
    return tuple(left)
