"""What models there are: `GET /models`, `/models/{model}`, `/models/{model}/versions/{version}`."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

from fastapi import APIRouter, Path, Query
from pydantic import Field
from pydantic.config import JsonDict

from marway import errors
from marway.errors import ModelNotFound
from marway.records import VersionRecord
from marway.refs import Reference, check_model_id
from marway.registry import Registry
from marway.registry.reading import ModelSummary as Found
from marway.serving import ServingSettings
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.json_models import JsonModel, examples
from marway_gateway.openapi import problems

__all__ = [
    "AnyModel",
    "ModelList",
    "ModelSummary",
    "VersionDetail",
    "catalogue_router",
    "found_models",
    "model_summary",
    "version_detail",
]

AnyModel = Annotated[str, Path(description="A model's name, or the id of one of its versions.", examples=["intent"])]
VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["1.0"])]
Limit = Annotated[int, Query(ge=1, le=1000, description="Models a page.")]
After = Annotated[
    str, Query(alias="next", max_length=128, description="The `next` of the page before.", examples=["intent"])
]

Contains = Annotated[
    str, Query(max_length=128, description="Only models whose names contain this, in any case.", examples=["int"])
]

_INTENT: JsonDict = {"name": "intent", "labels": {"PROD": "1.0", "STG": "1.1"}, "versions": ["1.0", "1.1"]}


class ModelSummary(JsonModel):
    """One model: its labels and where they point, and its versions that are not deleted."""

    model_config = examples(_INTENT)

    name: str
    labels: dict[str, str] = Field(description="Label to version.")
    versions: list[str] = Field(description="In the order of their names.")
    damage: str | None = Field(
        default=None, description="Why the model's state cannot be read; its labels and deletions are then not known."
    )


class ModelList(JsonModel):
    """One page of models, in the order of their names."""

    model_config = examples({"models": [_INTENT], "next": "intent"})

    models: list[ModelSummary]
    next: str | None = Field(description="Give this as `next` to get the page after this one; null on the last.")


class VersionDetail(VersionRecord):
    """A version's record, how it is served now, and the labels that point at it."""

    model_config = examples(
        {
            "format": 1,
            "id": "mv_01JD0Z6Y8Q6V5T4S3R2P1N0M9K",
            "name": "intent",
            "version": "1.0",
            "archive": {
                "sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
                "size_bytes": 81234,
            },
            "backend": "torchserve",
            "handler": "handler.py",
            "created_at": "2025-01-31T12:00:00Z",
            "publisher": "ana",
            "labels": ["PROD"],
        }
    )

    serving: ServingSettings = Field(
        default=ServingSettings(), description="The record's, under the model's overrides."
    )
    labels: list[str] = Field(description="Labels that point at this version.")


def catalogue_router(gateway: CurrentGateway, *, versions_only: bool = False) -> APIRouter:
    """Return the routes.

    Args:
        gateway: Gives the gateway.
        versions_only: Without `/models` and `/models/{model}`, which are somebody else's.
    """
    router = APIRouter(tags=["models"])
    if not versions_only:
        _add_models(router, gateway)

    @router.get(
        "/models/{model}/versions/{version}",
        summary="Show a version",
        responses=problems(
            errors.InvalidReference,
            errors.ModelNotFound,
            errors.VersionNotFound,
            errors.LabelNotFound,
            errors.RegistryUnavailable,
        ),
    )
    async def show_version(
        model: AnyModel,
        version: VersionOrLabel,
    ) -> VersionDetail:
        return await version_detail(gateway(), model, version)

    return router


async def version_detail(gateway: Gateway, model: str, version: str) -> VersionDetail:
    """Return what is shown of a version, or of the one that a label points at.

    Raises:
        InvalidReference, NotFound: There is none.
        RegistryUnavailable: The registry does not answer.
    """
    resolved = await gateway.resolver.resolve(model, version)
    state = await gateway.reader.call(gateway.reader.registry.state, resolved.record.name)
    labels = sorted(label for label, at in state.labels.items() if at == resolved.record.version)
    fields = {name: getattr(resolved.record, name) for name in VersionRecord.model_fields}
    return VersionDetail(**{**fields, "serving": resolved.serving, "labels": labels})


def _add_models(router: APIRouter, gateway: CurrentGateway) -> None:
    @router.get(
        "/models",
        summary="List models",
        response_model_exclude_unset=True,
        responses=problems(errors.InvalidRequest, errors.RegistryUnavailable),
    )
    async def list_models(limit: Limit = 100, after: After = "", contains: Contains = "") -> ModelList:
        reader = gateway().reader
        return await reader.call(_page, reader.registry, limit, after, contains)

    @router.get(
        "/models/{model}",
        summary="Show a model",
        response_model_exclude_unset=True,
        responses=problems(errors.InvalidReference, errors.ModelNotFound, errors.RegistryUnavailable),
    )
    async def show_model(model: AnyModel) -> ModelSummary:
        check_model_id(model)
        reader = gateway().reader
        return await reader.call(model_summary, reader.registry, model)


def found_models(registry: Registry, limit: int, after: str, contains: str = "") -> tuple[list[Found], str | None]:
    """Return models whose names contain a text, and the name behind which further ones begin, if there are. Blocks.

    Those whose versions are all deleted are left out.

    Args:
        registry: Whose models.
        limit: At most so many.
        after: The name behind which they begin.
        contains: In any case.
    """
    wanted = contains.lower()
    found = (name for name in registry.models(start_after=after) if wanted in name.lower())
    names = list(islice(found, limit + 1))
    page = names[:limit]
    summaries = (registry.summary(name) for name in page)
    shown = [each for each in summaries if not each.is_deleted]
    return shown, page[-1] if len(names) > limit else None


def _page(registry: Registry, limit: int, after: str, contains: str) -> ModelList:
    """Read one page. Blocks."""
    found, following = found_models(registry, limit, after, contains)
    return ModelList(models=[_shown(each) for each in found], next=following)


def model_summary(registry: Registry, name_or_id: str) -> ModelSummary:
    """Read one model, by its name or the id of one of its versions. Blocks.

    Raises:
        ModelNotFound: There is none.
        RegistryUnavailable: The registry does not answer.
    """
    pointer = registry.pointer(name_or_id)
    if pointer is None:
        registry.resolve(Reference(name_or_id))  # raises, naming what exists, unless it was published just now
        raise ModelNotFound(f"there was no model {name_or_id!r} a moment ago: try again", model=name_or_id)
    registry.state(pointer.model)  # raises where it is damaged: a list goes on without it, its own page does not
    return _shown(registry.summary(pointer.model))


def _shown(found: Found) -> ModelSummary:
    shown = ModelSummary(
        name=found.name, labels=dict(sorted(found.state.labels.items())), versions=list(found.versions)
    )
    return shown if found.damage is None else shown.model_copy(update={"damage": found.damage})
