"""How two versions differ: fields of their records, and files of their archives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

from marway.records import VersionRecord
from marway.stored import Frozen, JsonValue

__all__ = ["FieldDifference", "FileDifference", "Files", "different_facts", "different_files", "facts_of"]

_EXPECTED: Final = frozenset({"created_at", "format"})
"""Record fields that always differ, or never."""

Files = Mapping[str, tuple[int, int]]
"""Files by their name, with size in bytes and CRC-32."""


class FieldDifference(Frozen):
    """A field that is not the same: what the first has and what the second has, None where one has nothing."""

    field: str
    a: JsonValue
    b: JsonValue


class FileDifference(Frozen):
    """A file that is not the same, and its size in bytes on either side; None where it is not there."""

    name: str
    change: Literal["added", "removed", "changed"]
    a_bytes: int | None
    b_bytes: int | None


def facts_of(record: VersionRecord) -> dict[str, Any]:
    """Return what a record says, flat: `archive.sha256`, `training.features.FIELD`."""
    facts: dict[str, Any] = {}
    for name, value in record.model_dump(mode="json").items():
        if name in _EXPECTED:
            continue
        if isinstance(value, dict):
            features = value.pop("features", {}) if name == "training" else {}  # a line each, for those that differ
            facts |= {f"{name}.{key}": each for key, each in value.items()}
            facts |= {f"training.features.{key}": each for key, each in features.items()}
        else:
            facts[name] = value
    return facts


def different_facts(
    first: Mapping[str, Any], second: Mapping[str, Any], *, both: bool = False
) -> tuple[FieldDifference, ...]:
    """Return the facts that differ, in the order of the first; with ``both`` only those that both sides know."""
    names = dict.fromkeys([*first, *second])
    return tuple(
        FieldDifference(field=name, a=first.get(name), b=second.get(name))
        for name in names
        if first.get(name) != second.get(name) and (not both or (name in first and name in second))
    )


def different_files(first: Files, second: Files) -> tuple[FileDifference, ...]:
    """Return the files whose bytes differ, or that one side alone has, by name."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        one, other = first.get(name), second.get(name)
        if one == other:
            continue
        change: Literal["added", "removed", "changed"] = (
            "added" if one is None else "removed" if other is None else "changed"
        )
        found.append(FileDifference(name=name, change=change, a_bytes=one and one[0], b_bytes=other and other[0]))
    return tuple(found)
