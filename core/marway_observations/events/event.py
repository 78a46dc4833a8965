"""An event in the words of CloudEvents 1.0 (https://github.com/cloudevents/spec), as JSON."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import timezone
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, Field

from marway.errors import InvalidInput, clip
from marway.stored import Frozen

__all__ = [
    "APPROVAL_ASKED",
    "APPROVAL_GIVEN",
    "DELETED",
    "DRIFTED",
    "DRIFT_ENDED",
    "MAX_BYTES",
    "QUALITY_BELOW_MINIMUM",
    "QUALITY_RECOVERED",
    "RELEASED",
    "ROLLED_BACK",
    "ROLLOUT_ABORTED",
    "ROLLOUT_PAUSED",
    "ROLLOUT_PROMOTED",
    "ROLLOUT_RESUMED",
    "ROLLOUT_ROLLED_BACK",
    "ROLLOUT_STARTED",
    "ROLLOUT_STEP",
    "TYPES",
    "Event",
    "check_event_id",
    "is_type",
]

RELEASED: Final = "dev.marway.model.released"
ROLLED_BACK: Final = "dev.marway.model.rolled_back"
DELETED: Final = "dev.marway.model.deleted"
QUALITY_BELOW_MINIMUM: Final = "dev.marway.model.quality_below_minimum"
QUALITY_RECOVERED: Final = "dev.marway.model.quality_recovered"
APPROVAL_ASKED: Final = "dev.marway.approval.asked"
APPROVAL_GIVEN: Final = "dev.marway.approval.given"
ROLLOUT_STARTED: Final = "dev.marway.rollout.started"
ROLLOUT_STEP: Final = "dev.marway.rollout.step"
ROLLOUT_PAUSED: Final = "dev.marway.rollout.paused"
ROLLOUT_RESUMED: Final = "dev.marway.rollout.resumed"
ROLLOUT_PROMOTED: Final = "dev.marway.rollout.promoted"
ROLLOUT_ROLLED_BACK: Final = "dev.marway.rollout.rolled_back"
ROLLOUT_ABORTED: Final = "dev.marway.rollout.aborted"
DRIFTED: Final = "dev.marway.model.drifted"
DRIFT_ENDED: Final = "dev.marway.model.drift_ended"
TYPES: Final = (
    RELEASED,
    ROLLED_BACK,
    DELETED,
    QUALITY_BELOW_MINIMUM,
    QUALITY_RECOVERED,
    DRIFTED,
    DRIFT_ENDED,
    APPROVAL_ASKED,
    APPROVAL_GIVEN,
    ROLLOUT_STARTED,
    ROLLOUT_STEP,
    ROLLOUT_PAUSED,
    ROLLOUT_RESUMED,
    ROLLOUT_PROMOTED,
    ROLLOUT_ROLLED_BACK,
    ROLLOUT_ABORTED,
)
"""The types that are raised; more may come, all of which begin with `dev.marway.`."""
MAX_BYTES: Final = 64 * 1024
"""Largest event as JSON: what CloudEvents asks everybody on its way to let through."""
_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,199}")


def check_event_id(text: str) -> str:
    """Return ``text`` if it can be the id of an event, which is part of a key, else raise `InvalidInput`."""
    if not _ID.fullmatch(text):
        raise InvalidInput(
            f"{clip(text, 80)!r} cannot be the id of an event: use 1 to 200 letters, digits, '.', '_', '+' or '-', "
            "starting with a letter or digit"
        )
    return text


class Event(Frozen):
    """Something that happened to a model.

    Attributes:
        id: Made of what happened (`<model>-<generation>`, for a second event of one change with its name behind), so
            that it is the same whoever raises it.
        source: The registry that it happened in; `EventLog.raise_` says which. With the id it is unique anywhere.
        type: Such as `dev.marway.model.released`.
        subject: The model.
        time: When it happened, the same whoever raises it.
        data: What programs want to know of it, as JSON.
    """

    specversion: Literal["1.0"] = "1.0"
    id: Annotated[str, AfterValidator(check_event_id)]
    source: str = ""
    type: Annotated[str, Field(min_length=1)]
    subject: str
    time: AwareDatetime
    datacontenttype: Literal["application/json"] = "application/json"
    data: Mapping[str, Any] = Field(default_factory=dict)

    @property
    def day(self) -> str:
        """The day (UTC) on which it happened, as `2026-11-30`."""
        return self.time.astimezone(timezone.utc).strftime("%Y-%m-%d")

    def matches(self, *, model: str | None = None, types: Collection[str] = ()) -> bool:
        """Return whether it is of a model and of one of some types; one that ends with '*' stands for all so begun."""
        if model is not None and model != self.subject:
            return False
        return not types or any(is_type(self.type, wanted) for wanted in types)

    def encoded(self) -> bytes:
        """Return the JSON document that is stored and sent; a number in it that is not finite becomes null.

        Raises:
            InvalidInput: It is larger than `MAX_BYTES`.
        """
        at = self.time.astimezone(timezone.utc)
        document = self.model_copy(update={"time": at}).model_dump_json().encode()
        if len(document) > MAX_BYTES:
            raise InvalidInput(f"event {self.id} has {len(document)} bytes: at most {MAX_BYTES} are sent")
        return document


def is_type(given: str, wanted: str) -> bool:
    """Return whether a type is the one wanted, or begins with it where that ends with '*'."""
    return given.startswith(wanted[:-1]) if wanted.endswith("*") else given == wanted
