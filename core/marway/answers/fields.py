"""What answers look like: the fields that they have, and of which types, found by looking at some of them."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from marway.answers.golden import GoldenAnswer, mime_type
from marway.errors import clip
from marway.wire.comparison import FieldChange

__all__ = ["Fields", "field_changes", "nonfinite_at"]

_VALUES_MAX: Final = 200_000
"""Most values of one answer that are looked at."""
_PLACES_MAX: Final = 2_000
"""Most different places, over all answers."""
_NAME_MAX: Final = 60
_TYPES: Final = {type(None): "null", bool: "boolean", int: "number", float: "number", str: "string", list: "list"}
_PATH_MAX: Final = 200

Path = tuple[str | int | None, ...]
"""Names of fields from the outside in; None stands for every item of a list, a number for one."""


@dataclass(slots=True)
class _Place:
    """What was found at one place of the answers: how often which type, and in objects how often which field."""

    types: Counter[str] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)

    @property
    def objects(self) -> int:
        return self.types["object"]

    @property
    def fixed(self) -> bool:
        """Whether every object here had the same fields; others are maps, whose keys are values."""
        return all(count == self.objects for count in self.names.values())


class Fields:
    """The fields of some answers, and their types.

    Numbers are one type, as in JSON. A tensor is not looked into: its type is its dtype with its number of dimensions.

    Attributes:
        cut: Whether there was more than is looked at.
    """

    def __init__(self) -> None:
        self._places: dict[Path, _Place] = {}
        self.cut = False

    def add(self, answer: GoldenAnswer) -> None:
        """Take in an answer, however deep it is nested."""
        if answer.kind != "json":
            self._places.setdefault((), _Place()).types[_kind_of(answer)] += 1
            return
        stack: list[tuple[Path, Any]] = [((), answer.value)]
        for _ in range(_VALUES_MAX):
            if not stack:
                return
            path, value = stack.pop()
            place = self._places.get(path)
            if place is None:
                if len(self._places) >= _PLACES_MAX:
                    self.cut = True
                    continue
                place = self._places[path] = _Place()
            place.types[_TYPES.get(type(value), "object")] += 1
            if isinstance(value, dict):
                place.names.update(value.keys())
                stack += [((*path, name), each) for name, each in value.items()]
            elif isinstance(value, list):
                stack += [((*path, None), each) for each in value]
        self.cut = self.cut or bool(stack)

    def merge(self, other: Fields) -> None:
        """Take in what other answers have."""
        for path, found in other._places.items():
            place = self._places.get(path)
            if place is None:
                if len(self._places) >= _PLACES_MAX:
                    self.cut = True
                    continue
                place = self._places[path] = _Place()
            place.types.update(found.types)
            place.names.update(found.names)
        self.cut = self.cut or other.cut

    def never_seen(self, other: Fields) -> set[str]:
        """Return the fields of ``other`` that no answer here has, where these have the same few again and again.

        Where a name came just once others are to come: such an object is a map, whose keys are values.
        """
        found: set[str] = set()
        for path, place in other._places.items():
            mine = self._places.get(path)
            if mine is not None and mine.objects and 1 not in mine.names.values():
                found |= {_shown_path((*path, name)) for name in place.names if name not in mine.names}
        return found

    def at(self, path: Path) -> _Place | None:
        """Return what was found at a place, or None."""
        return self._places.get(path)


def field_changes(before: Fields, after: Fields) -> list[FieldChange]:
    """Return how the fields and types of two versions' answers to the same inputs differ, from the outside in.

    What the answers do not tell is no change: items of lists that are empty, and keys of objects that did not always
    have the same ones before, for those are maps. A type is one only where it is new: an answer that was text or null
    may always be text now.
    """
    found: list[FieldChange] = []
    paths: list[Path] = [()]
    while paths:
        path = paths.pop(0)
        old, new = before.at(path), after.at(path)
        if old is None or new is None:
            continue
        if set(new.types) - set(old.types):
            found.append(FieldChange(field=_shown_path(path), change="type", before=_types(old), after=_types(new)))
        if old.objects and new.objects:
            found += _names(path, before, after, old, new)
            paths += [(*path, name) for name in old.names if name in new.names]
        paths.append((*path, None))
    return found


def _names(path: Path, before: Fields, after: Fields, old: _Place, new: _Place) -> list[FieldChange]:
    """Return what became of the fields of the objects at ``path``."""
    removed = [
        name for name, count in old.names.items() if count == old.objects and new.names.get(name, 0) < new.objects
    ]
    added = [name for name in new.names if name not in old.names] if old.fixed else []
    gone = [name for name in removed if name not in new.names]
    if len(gone) == len(added) == 1:
        one, other = before.at((*path, gone[0])), after.at((*path, added[0]))
        if one is not None and other is not None and set(one.types) == set(other.types):
            to = _shown_path((*path, added[0]))
            renamed = FieldChange(
                field=_shown_path((*path, gone[0])), change="renamed", before=_types(one), after=_types(other), to=to
            )
            return [renamed, *(_removed((*path, name), before, after) for name in removed if name not in gone)]
    return [
        *(_removed((*path, name), before, after) for name in removed),
        *(
            FieldChange(field=_shown_path((*path, name)), change="added", after=_types(after.at((*path, name))))
            for name in added
        ),
    ]


def _removed(path: Path, before: Fields, after: Fields) -> FieldChange:
    left = after.at(path)
    return FieldChange(
        field=_shown_path(path),
        change="removed",
        before=_types(before.at(path)),
        after=None if left is None else f"{_types(left)}, not in every answer",
    )


def _shown_path(path: Path) -> str:
    """Return a place as people write it: ``scores[].label``."""
    text = ""
    for name in path:
        if isinstance(name, str):
            text += ("." if text else "") + clip(name, _NAME_MAX)
        else:
            text += "[]" if name is None else f"[{name}]"
        if len(text) > _PATH_MAX:
            break
    return clip(text, _PATH_MAX)


def _types(place: _Place | None) -> str:
    return clip(" or ".join(sorted(place.types)), 200) if place is not None else "?"


def _kind_of(answer: GoldenAnswer) -> str:
    if answer.kind == "tensor" and isinstance(answer.value, dict):
        dimensions = len(answer.value.get("shape") or ())
        return f"tensor of {dimensions} dimension{'s' * (dimensions != 1)} of {answer.value.get('dtype')}"
    named = mime_type(answer.content_type).lower()
    return f"{answer.kind} ({clip(named, 80)})" if named else answer.kind


def nonfinite_at(answer: GoldenAnswer) -> str | None:
    """Return where an answer holds NaN or an infinity first, such as ``at score: NaN``, or None.

    JSON and tensors are looked into, however deep they are nested; text and bytes are not.
    """
    if answer.kind not in ("json", "tensor"):
        return None
    value = answer.value.get("values") if answer.kind == "tensor" and isinstance(answer.value, dict) else answer.value
    stack: list[tuple[Path, Any]] = [((), value)]
    while stack:
        path, each = stack.pop()
        if isinstance(each, float):
            if not math.isfinite(each):
                shown = "NaN" if math.isnan(each) else "infinity" if each > 0 else "-infinity"
                return f"at {_shown_path(path)}: {shown}" if path else shown
        elif isinstance(each, dict):
            stack += [((*path, name), inner) for name, inner in reversed(each.items())]
        elif isinstance(each, list):
            stack += [((*path, index), inner) for index, inner in reversed(list(enumerate(each)))]
    return None
