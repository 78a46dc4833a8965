"""What is known of one field of a model's inputs or outputs: how its values are spread, in a bounded space."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final, Literal, cast
from zlib import crc32

from pydantic import Field, GetJsonSchemaHandler, model_serializer
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from marway.stored import Frozen

__all__ = ["FEATURES_BYTES_MAX", "FeatureSummary", "bucket_of", "fitted"]

FEATURES_BYTES_MAX: Final = 24 * 1024
"""What the summaries of a record may take, in bytes as they are stored: a record has 64 KiB for everything."""
_SIZES: Final = ((50, 100), (25, 50), (10, 25))
"""Most bins of a number and most categories or words that are kept, from fine to coarse."""

Share = Annotated[float, Field(ge=0, le=1)]


class FeatureSummary(Frozen):
    """How the values of one field are spread. Each row counts once, however many values it has in the field.

    The shares of a field, ``rest`` and ``missing`` together are 1. A reader passes over a kind that it does not know.
    """

    kind: Literal["number", "category", "words"] | str  # noqa: PYI051  # kinds of a later version are read, too
    rows: Annotated[int, Field(ge=0)]
    """Rows that were looked at."""
    missing: Share = 0
    """The part of them that has no value in the field, or one of another kind."""
    edges: tuple[float, ...] = ()
    """Of numbers: the upper ends of bins, rising; a bin reaches from behind the end before it to its own. The last is
    the largest number."""
    exact: bool = False
    """Of numbers: whether there were so few different ones that each is an edge."""
    names: tuple[str, ...] = ()
    """Of categories and words: the frequent ones, the most frequent first."""
    shares: tuple[Share, ...] = ()
    """The part of the rows in each bin, or with each name."""
    rest: Share = 0
    """The part with a category or word that is not named."""
    buckets: tuple[Share, ...] = ()
    """Of words: the rest, by `bucket_of`. New words are told by it from rare ones, of which there are too many to name;
    the number of buckets is a power of two, so that neighbours in halves can be put together."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, as_usual: Callable[[FeatureSummary], dict[str, Any]]) -> dict[str, Any]:
        return {name: value for name, value in as_usual(self).items() if value or name == "rows"}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # Of a serializer pydantic only knows that it gives a dict: what is in that, the fields say.
        return handler(cast("CoreSchema", {name: value for name, value in schema.items() if name != "serialization"}))

    def coarser(self, bins: int, names: int) -> FeatureSummary:
        """Return the summary with at most so many bins, or names."""
        if self.kind == "number" and len(self.edges) > bins:
            edges, shares = _merged(self.edges, self.shares, bins)
            return self.model_copy(update={"edges": edges, "shares": shares, "exact": False})
        if len(self.names) > names:
            rest = round(min(1.0, self.rest + sum(self.shares[names:])), 6)
            buckets = list(self.buckets)
            if buckets:
                for name, share in zip(self.names[names:], self.shares[names:], strict=True):
                    place = bucket_of(name, len(buckets))
                    buckets[place] = round(min(1.0, buckets[place] + share), 6)
            kept = {"names": self.names[:names], "shares": self.shares[:names], "rest": rest, "buckets": tuple(buckets)}
            return self.model_copy(update=kept)
        return self


def bucket_of(word: str, buckets: int) -> int:
    """Return which of so many buckets a word is in: by CRC-32 of its UTF-8, which is the same everywhere."""
    return crc32(word.encode(errors="surrogatepass")) % buckets


def _merged(
    edges: tuple[float, ...], shares: tuple[float, ...], bins: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return at most ``bins`` bins of about the same share each, made of neighbours."""
    wanted = sum(shares) / bins
    found: list[tuple[float, float]] = []
    share = total = 0.0
    for edge, each in zip(edges, shares, strict=True):
        share, total = share + each, total + each
        if total >= wanted * (len(found) + 1) - 1e-9:
            found.append((edge, share))
            share = 0.0
    if share or not found or found[-1][0] != edges[-1]:
        before = found.pop()[1] if len(found) == bins else 0.0
        found.append((edges[-1], share + before))
    return tuple(edge for edge, _ in found), tuple(round(share, 6) for _, share in found)


def fitted(features: Mapping[str, FeatureSummary], *, bytes_max: int = FEATURES_BYTES_MAX) -> dict[str, FeatureSummary]:
    """Return summaries that take no more than ``bytes_max`` as they are stored: coarser, then fewer, the last go first.

    What is stored is JSON with an item a line (`marway.registry.encoding`).
    """
    kept = dict(features)
    for bins, names in _SIZES:
        kept = {name: summary.coarser(bins, names) for name, summary in kept.items()}
        sizes = {name: _stored_bytes(name, summary) for name, summary in kept.items()}
        if sum(sizes.values()) <= bytes_max:
            return kept
    total = 0
    fitting: dict[str, FeatureSummary] = {}
    for name, summary in kept.items():
        total += sizes[name]
        if total > bytes_max:
            break
        fitting[name] = summary
    return fitting


def _stored_bytes(name: str, summary: FeatureSummary) -> int:
    nested = {"training": {"features": {name: summary.model_dump(mode="json")}}}
    return len(json.dumps(nested, indent=1, ensure_ascii=False).encode())
