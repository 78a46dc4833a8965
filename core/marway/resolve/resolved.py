"""What a reference stands for now."""

from __future__ import annotations

from dataclasses import dataclass

from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway.traffic import Traffic

__all__ = ["Divided", "Resolved", "alike"]


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reference stands for now.

    Attributes:
        record: The version.
        serving: How it is served now: the record's settings under the state's overrides.
        label: The label that led to it, or None when a version or an id did.
        divided: How the label's requests are divided just now; None where the version gets them all.
    """

    record: VersionRecord
    serving: ServingSettings
    label: str | None
    divided: Divided | None = None


@dataclass(frozen=True, slots=True)
class Divided:
    """The other versions that requests of a label may go to.

    Attributes:
        traffic: How they are divided.
        candidate: Who answers some of them; None where nobody else does.
        shadow: Who gets copies, each with how many in a hundred.
    """

    traffic: Traffic
    candidate: Resolved | None
    shadow: tuple[tuple[Resolved, float], ...]


def alike(one: Resolved, other: Resolved) -> bool:
    """Return whether two versions take the same bodies of every surface, and their answers are read alike."""
    return (one.record.signature, one.record.backend, one.serving.streaming) == (
        other.record.signature,
        other.record.backend,
        other.serving.streaming,
    )
