"""Looks at rows, and sums up how the values of each of their fields are spread."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import jmespath
from jmespath.exceptions import JMESPathError

from marway.features.pictures import brightness
from marway.features.summaries import FeatureSummary, bucket_of
from marway.features.walking import Value, base_of, root_of, values_of

__all__ = ["Column", "Rows"]

_COLUMNS_MAX: Final = 300
_FEATURES_MAX: Final = 100
_PRESENT_MIN: Final = 0.01
"""The part of the rows from which on a field is one: the keys of maps are none."""
_BINS: Final = 50
_EXACT_MAX: Final = 20
_NAMES_MAX: Final = 100
_BUCKETS: Final = 32
_ROWS_OF_NAME_MIN: Final = 5
"""Rows that a category or word must be in to be named: what only a few have says nothing, and may be private."""
_CATEGORY_MAX: Final = 64
_CATEGORIES_COVER: Final = 0.9
_WORDS_COVER: Final = 0.1
_TEXT_MAX: Final = 20_000
"""Characters of a text whose words are looked at."""
# Runs of letters, and single characters where words are not apart: kana, Chinese characters, Hangul syllables.
_WORD: Final = re.compile(r"[぀-ヿ㐀-鿿가-힯]|[^\W぀-ヿ㐀-鿿가-힯]+")
_Weights = defaultdict[str, float]


class Column:
    """The values that were found in one field; ``present`` is in rows."""

    __slots__ = ("lengths", "names", "names_present", "numbers", "present", "weights", "words", "words_present")

    def __init__(self) -> None:
        self.numbers = array("d")
        self.weights = array("d")
        self.names: _Weights = defaultdict(float)
        self.names_present = 0.0
        self.words: _Weights = defaultdict(float)
        self.words_present = 0.0
        self.present = 0.0

    def add(self, value: Value, weight: float) -> None:
        """Take in a value that is ``weight`` of its row."""
        self.present += weight
        if isinstance(value, bool):
            self._add_name("true" if value else "false", weight)
        elif isinstance(value, float):
            self.numbers.append(value)
            self.weights.append(weight)
        elif isinstance(value, str):
            self._add_name(value if len(value) <= _CATEGORY_MAX else "", weight)
            found = _WORD.findall(value[:_TEXT_MAX].casefold())
            if found:
                self.words_present += weight
                for word in found:
                    self.words["#" if word.isdigit() else word] += weight / len(found)

    def _add_name(self, name: str, weight: float) -> None:
        self.names[name] += weight
        self.names_present += weight

    def numbers_in(self, edges: Sequence[float]) -> tuple[float, ...]:
        """Return the rows up to each edge from the one before it, and those behind the last."""
        counts = [0.0] * (len(edges) + 1)
        for value, weight in zip(self.numbers, self.weights, strict=True):
            counts[bisect_left(edges, value)] += weight
        return tuple(counts)


class Rows:
    """Rows of inputs or outputs, or both.

    Args:
        fields: JMESPath expressions below `input` and `output`; none means every field that is found.

    Attributes:
        cut: Whether there were more fields than are looked at.
    """

    def __init__(self, fields: Iterable[str] = ()) -> None:
        self._fields = {text: jmespath.compile(text) for text in fields}
        self._columns: dict[str, Column] = {}
        self._rows: dict[str, int] = defaultdict(int)
        self.cut = False

    def add(self, document: Mapping[str, Sequence[Any]]) -> None:
        """Take in one row: under `input` and `output` what it has of each; several mean parts that count as one."""
        for root, parts in document.items():
            self._rows[root] += 1
            for part in parts:
                weight = 1 / len(parts)
                if not self._fields:
                    self._add(root, part, weight)
                    continue
                for text, expression in self._fields.items():
                    if root_of(text) == root:
                        self._add(text, _found(expression, {root: part}), weight)

    def _add(self, name: str, value: Any, weight: float) -> None:
        for field, found, share in values_of(name, value, weight):
            if isinstance(found, bytes):
                if (light := brightness(found)) is not None:
                    self._put(f"brightness({field})", light, share)
                continue
            self._put(field, found, share)
            if isinstance(found, str):
                self._put(f"length({field})", float(len(found)), share)

    def _put(self, field: str, value: Value, weight: float) -> None:
        column = self._columns.get(field)
        if column is None:
            if len(self._columns) >= _COLUMNS_MAX:
                self.cut = True
                return
            column = self._columns[field] = Column()
        column.add(value, weight)

    def rows(self, feature: str) -> int:
        """Return how many rows there are of what a feature is of, inputs or outputs."""
        return self._rows.get(root_of(feature) or "", 0)

    def fields(self) -> Iterable[str]:
        """Return the names of all fields that were found, however rare."""
        return {base_of(name) for name in self._columns}

    def column(self, feature: str) -> Column:
        """Return what was found of a feature of a summary."""
        name = base_of(feature) if feature.startswith("words(") else feature
        return self._columns.get(name) or Column()

    def summarize(self) -> dict[str, FeatureSummary]:
        """Return the summary of each field that is in 1 % of the rows or more, the fullest first; at most 100.

        A field of texts is one of categories where its 100 most frequent ones are nearly all of them; else their
        lengths and words are summed up.
        """
        found: dict[str, FeatureSummary] = {}
        by_presence = sorted(self._columns, key=lambda name: (-self._columns[name].present, name))
        texts = {name for name in by_presence if self._is_text(name)}
        for name in by_presence:
            column, rows = self._columns[name], self.rows(name)
            base = base_of(name)
            of_text = base != name and base in self._columns and bool(self._columns[base].names)
            if column.present < max(1.0, rows * _PRESENT_MIN) or (of_text and base not in texts):
                continue
            if name in texts:
                words = _named("words", column.words, column.words_present, rows)
                if words.names and sum(words.shares) >= _WORDS_COVER * column.words_present / rows:
                    found[f"words({name})"] = words
            elif sum(column.weights) >= column.names_present:
                found[name] = _number(column, rows)
            else:
                found[name] = _named("category", column.names, column.names_present, rows)
        self.cut = self.cut or len(found) > _FEATURES_MAX
        return dict(list(found.items())[:_FEATURES_MAX])

    def _is_text(self, name: str) -> bool:
        column = self._columns[name]
        if sum(column.weights) >= column.names_present:
            return False
        counts = sorted(column.names.values(), reverse=True)
        few = len(counts) <= max(2, column.names_present / 2)
        long = column.names.get("", 0.0)
        return not few or sum(counts[:_NAMES_MAX]) - long < _CATEGORIES_COVER * column.names_present


def _found(expression: Any, document: Mapping[str, Any]) -> Any:
    """Return what an expression finds; where a function of it is given what it does not take, that is nothing."""
    try:
        return expression.search(document)
    except JMESPathError:
        return None


def _number(column: Column, rows: int) -> FeatureSummary:
    """Return the bins of a column of numbers: one for each where there are few, else about as many rows in each."""
    counts: dict[float, float] = defaultdict(float)
    for value, weight in zip(column.numbers, column.weights, strict=True):
        counts[value] += weight
    total = sum(counts.values())
    exact = len(counts) <= _EXACT_MAX
    edges: list[float] = []
    shares: list[float] = []
    share = done = 0.0
    for value in sorted(counts):
        share, done = share + counts[value], done + counts[value]
        if exact or done >= total * (len(edges) + 1) / _BINS - 1e-9:
            edges.append(value if exact else float(f"{value:.9g}"))
            shares.append(round(share / rows, 6))
            share = 0.0
    return FeatureSummary(
        kind="number", rows=rows, missing=_missing(total, rows), edges=tuple(edges), shares=tuple(shares), exact=exact
    )


def _named(kind: str, counts: Mapping[str, float], present: float, rows: int) -> FeatureSummary:
    frequent = sorted(
        ((name, count) for name, count in counts.items() if count >= _ROWS_OF_NAME_MIN and len(name) <= _CATEGORY_MAX),
        key=lambda pair: (-pair[1], pair[0]),
    )[:_NAMES_MAX]
    shares = tuple(round(count / rows, 6) for _, count in frequent)
    buckets = [0.0] * (_BUCKETS if kind == "words" else 0)
    if buckets:
        named = {name for name, _ in frequent}
        for name, count in counts.items():
            if name not in named:
                buckets[bucket_of(name, _BUCKETS)] += count / rows
    return FeatureSummary(
        kind=kind,
        rows=rows,
        missing=_missing(present, rows),
        names=tuple(name for name, _ in frequent),
        shares=shares,
        rest=max(0.0, round(present / rows - sum(shares), 6)),
        buckets=tuple(round(min(1.0, each), 6) for each in buckets),
    )


def _missing(present: float, rows: int) -> float:
    return min(1.0, max(0.0, round(1 - present / rows, 6)))
