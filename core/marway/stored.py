"""The bases of all that is stored as JSON."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from typing_extensions import TypeAliasType

__all__ = ["Extensible", "Frozen", "JsonValue"]

JsonValue = TypeAliasType("JsonValue", "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None")
"""Any JSON value: what that means is the model's affair."""


class Frozen(BaseModel):
    """Base of all stored types: immutable, tolerant of fields from the future."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class Extensible(BaseModel):
    """Base of what is read, changed and written back: fields from the future are kept, not dropped."""

    model_config = ConfigDict(frozen=True, extra="allow", populate_by_name=True, protected_namespaces=())
