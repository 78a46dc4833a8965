"""Admin routes about what is inside a version: files, golden examples, proofs, and how it differs from another."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query, Response

from marway import errors
from marway.answers.golden import ExampleInput, mime_type
from marway_gateway.admin.parameters import Model
from marway_gateway.admin.versions.reading import VersionReading
from marway_gateway.admin.versions.views import DifferencesView, ExamplesView, FilesView, ProofsView
from marway_gateway.gateway import CurrentGateway
from marway_gateway.openapi import REFERENCE_ERRORS, problems

__all__ = ["versions_router"]

_OF_VERSION: Final = "/models/{model}/versions/{version}"
VersionOrLabel = Annotated[str, Path(description="A version, or a label.", examples=["1.1", "PROD"])]
Number = Annotated[int, Path(ge=1, description="Which example, from 1.", examples=[1])]
Base = Annotated[
    str,
    Query(max_length=128, description="The version, or the label of it, to compare with.", examples=["PROD", "1.0"]),
]
FilesMost = Annotated[int, Query(alias="limit", ge=1, le=10_000, description="At most so many files.")]
ExamplesMost = Annotated[int, Query(alias="limit", ge=1, le=1000, description="At most so many examples.")]

_SHOWN: Final = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp", "image/bmp"})
"""What a browser may show as what it says it is: pictures in which no script can be. All sound is as harmless."""
_ALONE: Final = {"content-security-policy": "sandbox; default-src 'none'", "x-content-type-options": "nosniff"}
"""Whoever publishes an archive chooses what an example is: no browser may take it for a page of this port."""


def versions_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["versions"])

    @router.get(
        f"{_OF_VERSION}/files",
        summary="The files of a version's archive",
        responses=problems(*REFERENCE_ERRORS, errors.ArchiveCorrupt),
    )
    async def version_files(model: Model, version: VersionOrLabel, most: FilesMost = 1000) -> FilesView:
        """Only the archive's directory is fetched, whatever its size."""
        return await (await VersionReading.find(current(), model, version)).files(most)

    @router.get(
        f"{_OF_VERSION}/examples",
        summary="A version's golden examples, and what it answered to them",
        responses=problems(*REFERENCE_ERRORS, errors.ArchiveCorrupt, errors.MarwayError),
    )
    async def version_examples(model: Model, version: VersionOrLabel, most: ExamplesMost = 100) -> ExamplesView:
        return await (await VersionReading.find(current(), model, version)).examples(most)

    @router.get(
        f"{_OF_VERSION}/examples/{{number}}",
        summary="The input of a golden example, as a client would send it",
        response_class=Response,
        responses={
            200: {"description": "Its bytes.", "content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}},
            **problems(*REFERENCE_ERRORS, errors.InvalidRequest, errors.ArchiveCorrupt, errors.MarwayError),
        },
    )
    async def version_example(model: Model, version: VersionOrLabel, number: Number) -> Response:
        """Pictures and sound keep their content type; all else comes as a file to save."""
        reading = await VersionReading.find(current(), model, version)
        return _as_file(await reading.example(number), f"{reading.record.name}-{reading.record.version}-{number}")

    @router.get(
        f"{_OF_VERSION}/proofs",
        summary="What is proved about a version",
        responses=problems(*REFERENCE_ERRORS),
    )
    async def version_proofs(model: Model, version: VersionOrLabel) -> ProofsView:
        """Who loaded its archive, who reproduced its golden answers, what a replay found; newest first."""
        return await (await VersionReading.find(current(), model, version)).proofs()

    @router.get(
        f"{_OF_VERSION}/differences",
        summary="How a version differs from another one",
        responses=problems(*REFERENCE_ERRORS, errors.ArchiveCorrupt),
    )
    async def version_differences(model: Model, version: VersionOrLabel, base: Base) -> DifferencesView:
        """Fields of their records, files of their archives, and their published golden answers; nothing is run."""
        gateway = current()
        other = (await gateway.resolver.resolve(model, base)).record
        return await (await VersionReading.find(gateway, model, version)).differences(other)

    return router


def _as_file(example: ExampleInput, name: str) -> Response:
    mime = mime_type(example.content_type).lower()
    if mime in _SHOWN or mime.startswith("audio/"):
        return Response(example.data, media_type=mime, headers=_ALONE)
    saved = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(example.data, media_type="application/octet-stream", headers=_ALONE | saved)
