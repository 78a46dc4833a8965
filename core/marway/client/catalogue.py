"""What models there are, as the gateway's `GET /models` says."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marway.errors import MarwayError

__all__ = ["Model", "ModelVersion", "page_of", "read_as"]

_Kind = TypeVar("_Kind", bound=BaseModel)


class Model(BaseModel):
    """A model: its labels and where they point, and its versions."""

    model_config = ConfigDict(frozen=True)

    name: str
    labels: dict[str, str] = Field(default_factory=dict)
    versions: list[str] = Field(default_factory=list)
    damage: str | None = None
    """Why its state cannot be read, where that is so; labels are then not known."""


class ModelVersion(BaseModel):
    """A version of a model, as it was published and as it is served; other members as the gateway has them."""

    model_config = ConfigDict(frozen=True, extra="allow")

    id: str
    name: str
    version: str
    backend: str
    created_at: datetime
    labels: list[str]
    """Labels that point at it."""


def page_of(document: Any) -> tuple[list[Model], str | None]:
    """Return the models of one page of the list, and where the next begins."""
    listed = document.get("models") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise MarwayError("the list of models is none: is this the public port of a gateway?")
    return [read_as(Model, each) for each in listed], document.get("next")


def read_as(kind: type[_Kind], document: Any) -> _Kind:
    """Return a document as what it should be.

    Raises:
        MarwayError: It is something else.
    """
    try:
        return kind.model_validate(document)
    except ValidationError as exc:
        raise MarwayError(f"the gateway says of a model what this client cannot read: {exc}") from exc
