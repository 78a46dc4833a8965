"""What one gateway process, or all, counted of the copies to one version."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from marway.errors import clip

__all__ = ["Durations", "Example", "Kind", "ShadowCounts", "count_name", "most"]

NAMES_MAX: Final = 100
_NAME_MAX: Final = 200
_EXAMPLES: Final = 10
_PER_OCTAVE: Final = 8
_LEAST_S: Final = 1e-5

Kind = Literal["failed", "shape", "decision", "value"]
"""What was different."""


class Durations(BaseModel):
    """How long calls took: counts in buckets, each 9 % longer than the one before, so that sums are of any number."""

    model_config = ConfigDict(extra="ignore")

    buckets: dict[int, int] = Field(default_factory=dict)

    def add(self, seconds: float) -> None:
        """Take in one."""
        bucket = round(math.log2(max(seconds, _LEAST_S) / _LEAST_S) * _PER_OCTAVE)
        self.buckets[bucket] = self.buckets.get(bucket, 0) + 1

    def merge(self, other: Durations) -> None:
        """Take in another's."""
        for bucket, count in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + count

    def quantile(self, part: float) -> float | None:
        """Return the seconds that so large a part took at most, within 5 %; None of no call."""
        left = part * sum(self.buckets.values())
        for bucket in sorted(self.buckets):
            left -= self.buckets[bucket]
            if left <= 0:
                return float(_LEAST_S * 2 ** (bucket / _PER_OCTAVE))
        return None


class Example(BaseModel):
    """One request that the two versions answered differently, for whoever looks further (`marway why`).

    Attributes:
        at: When, in seconds since the epoch.
        kind: What was different.
        request_id: The request's; None where observations leave it out.
        base_prediction_id, prediction_id: Those of the two answers, where observations keep them.
        text: How, in words that may quote the answers; None where bodies are not kept of both versions as they are.
    """

    model_config = ConfigDict(extra="ignore")

    at: float
    kind: Kind
    request_id: str | None = None
    base_prediction_id: str | None = None
    prediction_id: str | None = None
    text: str | None = None


class ShadowCounts(BaseModel):
    """Counts of the copies to one version, which may be added up.

    Attributes:
        answered: Copies that the version answered, failures among them.
        failed, base_failed: Of these, that the version, or the base, failed.
        compared: Where both answered, and both answers could be looked into.
        not_comparable: Where both answered in pieces, or in more than a gateway looks into.
        equal: Compared ones that are the same, floats within the tolerance of golden answers.
        agreed: Compared ones in which both decide alike.
        shape_differs: Compared ones with other fields, types or another content type.
        nonfinite, base_nonfinite: Answers with NaN or an infinity.
        rows: Rows of what was compared.
        dropped: Copies that were not made or not answered, by why.
        fields: In how many answers a field differed.
        shapes, decisions, errors: How often which difference, decision or failure was seen: the first hundred of each.
        model_s, base_model_s: How long the model server took.
        examples: Some requests, the newest.
    """

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    answered: int = 0
    failed: int = 0
    base_failed: int = 0
    compared: int = 0
    not_comparable: int = 0
    equal: int = 0
    agreed: int = 0
    shape_differs: int = 0
    nonfinite: int = 0
    base_nonfinite: int = 0
    rows: int = 0
    dropped: Counter[str] = Field(default_factory=Counter)
    fields: Counter[str] = Field(default_factory=Counter)
    shapes: Counter[str] = Field(default_factory=Counter)
    decisions: Counter[str] = Field(default_factory=Counter)
    errors: Counter[str] = Field(default_factory=Counter)
    model_s: Durations = Field(default_factory=Durations)
    base_model_s: Durations = Field(default_factory=Durations)
    examples: list[Example] = Field(default_factory=list)

    def add(self, other: ShadowCounts) -> None:
        """Take in what another process counted."""
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _NAMES:
            mine: Counter[str] = getattr(self, name)
            mine.update(getattr(other, name))
        self.model_s.merge(other.model_s)
        self.base_model_s.merge(other.base_model_s)
        newest = sorted([*self.examples, *other.examples], key=lambda each: each.at)
        self.examples = newest[-_EXAMPLES:]

    def note(self, example: Example) -> None:
        """Keep an example in the place of the oldest."""
        self.examples = [*self.examples[1 - _EXAMPLES :], example]


def count_name(counts: Counter[str], name: str) -> None:
    """Count one more of a name that callers or models may have made: names that are too many are not told apart."""
    name = clip(name, _NAME_MAX)
    counts[name if name in counts or len(counts) < NAMES_MAX else "others"] += 1


def most(counts: Mapping[str, int], number: int) -> list[tuple[str, int]]:
    """Return so many of the names that were counted most often, and how often."""
    return sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:number]


_NAMES: Final = ("dropped", "fields", "shapes", "decisions", "errors")
_NUMBERS: Final = (
    *("answered", "failed", "base_failed", "compared", "not_comparable", "equal", "agreed", "shape_differs"),
    *("nonfinite", "base_nonfinite", "rows"),
)
