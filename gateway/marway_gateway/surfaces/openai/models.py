"""`GET /openai/v1/models` and `/openai/v1/models/{model}`: what `model` can be."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Final, Literal

from fastapi import APIRouter, Path, Query
from pydantic import Field
from pydantic.config import JsonDict

from marway import errors
from marway.errors import InvalidRecord, InvalidReference, ModelNotFound, NotFound
from marway.records import VersionRecord
from marway.refs import DEFAULT_LABEL, parse_reference
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import REFERENCE_ERRORS, error_responses
from marway_gateway.surfaces.openai.errors import OPENAI_ERRORS

__all__ = ["OpenAIModel", "OpenAIModels", "models_router"]

_AT_ONCE: Final = 8
"""Models that are looked up at a time, so that predictions find their turn at the registry."""
_CHAT: Final[JsonDict] = {"id": "chat", "object": "model", "created": 1738324800, "owned_by": "ana", "version": "1.0"}


class OpenAIModel(JsonModel):
    """What a request may name as its `model`."""

    model_config = examples(_CHAT)

    id: str = Field(description="A model's name, which means its version at PROD, or a name and a label.")
    object: Literal["model"] = "model"
    created: int = Field(description="When the version was published, in seconds since 1970.")
    owned_by: str = Field(description="Who published it.")
    version: str = Field(description="The version that is meant now.")


class OpenAIModels(JsonModel):
    """One page of models, in the order of their names."""

    model_config = examples({"object": "list", "data": [_CHAT], "has_more": False})

    object: Literal["list"] = "list"
    data: list[OpenAIModel]
    has_more: bool = Field(description="Whether there are more: give the last model's name as `after` to get them.")


def models_router(gateway: CurrentGateway, tag: str) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=[tag])

    @router.get(
        "/openai/v1/models",
        name="openai_models",
        summary="List the models, as OpenAI does",
        responses=error_responses(OPENAI_ERRORS, errors.InvalidRequest, errors.RegistryUnavailable),
    )
    async def list_models(
        limit: Annotated[int, Query(ge=1, le=1000, description="Models a page; each may have several labels.")] = 1000,
        after: Annotated[str, Query(max_length=128, description="The name behind which the page begins.")] = "",
    ) -> OpenAIModels:
        current = gateway()
        reader = current.reader
        names = await reader.call(lambda: list(islice(reader.registry.models(start_after=after), limit + 1)))
        turns = asyncio.Semaphore(_AT_ONCE)

        async def look_up(name: str) -> list[OpenAIModel]:
            async with turns:
                return await _of_labels(current, name)

        found = await asyncio.gather(*map(look_up, names[:limit]))
        return OpenAIModels(data=[each for models in found for each in models], has_more=len(names) > limit)

    @router.get(
        "/openai/v1/models/{model:path}",
        name="openai_model",
        summary="Show a model, as OpenAI does",
        responses=error_responses(OPENAI_ERRORS, *REFERENCE_ERRORS),
    )
    async def show_model(
        model: Annotated[
            str, Path(description="A name, a name with /LABEL or /VERSION, or an id.", examples=["intent"])
        ],
    ) -> OpenAIModel:
        model = model.replace("%2F", "/")  # as OpenAI's client sends it; our server keeps it apart from a path's slash
        try:
            reference = parse_reference(model)
        except InvalidReference as exc:
            raise ModelNotFound(f"there is no such model: {exc.message}") from exc
        resolved = await gateway().resolver.resolve(reference.name, reference.selector)
        return _model(model, resolved.record)

    return router


async def _of_labels(gateway: Gateway, name: str) -> list[OpenAIModel]:
    """Return what there is of one model: its name where it has a version at PROD, and its other labels.

    What was deleted meanwhile, or cannot be read, is left out: a list goes on without it.
    """
    found = []
    try:
        for label in _in_order(await gateway.resolver.labels_of(name)):
            resolved = await gateway.resolver.resolve(name, label)
            found.append(_model(name if label == DEFAULT_LABEL else f"{name}/{label}", resolved.record))
    except (NotFound, InvalidRecord):
        pass
    return found


def _in_order(labels: dict[str, str]) -> Iterator[str]:
    return iter(sorted(labels, key=lambda label: (label != DEFAULT_LABEL, label)))


def _model(asked: str, record: VersionRecord) -> OpenAIModel:
    return OpenAIModel(
        id=asked, created=int(record.created_at.timestamp()), owned_by=record.publisher, version=record.version
    )
