"""What JSON documents of the gateway are made of: frozen models with an example, which the OpenAPI document shows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict
from typing_extensions import TypeAliasType

__all__ = ["JsonModel", "JsonValue", "examples"]

JsonValue = TypeAliasType("JsonValue", "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None")
"""Any JSON value: what that means is the model's affair."""


class JsonModel(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(frozen=True)


def examples(*values: JsonDict) -> ConfigDict:
    """Return what a model's `model_config` says where it has examples; the rest comes from its base."""
    return ConfigDict(json_schema_extra={"examples": [*values]})
