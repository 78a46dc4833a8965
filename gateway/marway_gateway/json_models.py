"""What JSON documents of the gateway are made of: frozen models with an example, which the OpenAPI document shows."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict
from pydantic.config import JsonDict

from marway.stored import JsonValue

__all__ = ["JsonModel", "JsonValue", "examples"]


class JsonModel(BaseModel):
    """A document, or a part of one."""

    model_config = ConfigDict(frozen=True)


def examples(*values: JsonDict) -> ConfigDict:
    """Return what a model's `model_config` says where it has examples; the rest comes from its base."""
    return ConfigDict(json_schema_extra={"examples": [*values]})
