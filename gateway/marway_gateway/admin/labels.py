"""Admin routes that change the registry: labels, serving settings, deletion."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Query

from marway import errors
from marway.records import ModelState, VersionRecord
from marway.refs import check_model_id, check_version
from marway.registry import Registry
from marway_gateway.admin.parameters import CallerOf, Model, NoteOf, TimeoutOf, deadline_of
from marway_gateway.admin.views import (
    ChangeView,
    DeletionView,
    LabelMove,
    ReleaseView,
    RollbackMove,
    ServingPatch,
    ServingView,
)
from marway_gateway.gateway import CurrentGateway
from marway_gateway.openapi import Label, problems

__all__ = ["CHANGE_ERRORS", "LOAD_ERRORS", "labels_router"]

Version = Annotated[str, Path(description="A version.", examples=["1.1"])]
Force = Annotated[bool, Query(description="Also a version that labels point at; they are taken away with it.")]

ForceModel = Annotated[bool, Query(description="Also one that labels point at; they are taken away with it.")]

CHANGE_ERRORS: Final = (
    *(errors.InvalidReference, errors.InvalidRequest, errors.InvalidInput, errors.ModelNotFound),
    *(errors.VersionNotFound, errors.StateConflict, errors.LabelProtected, errors.OutcomeUnknown),
    *(errors.RegistryUnavailable, errors.MarwayError),
)
LOAD_ERRORS: Final = (
    *(errors.AnswersDiffer, errors.ReleaseRefused, errors.LoadFailed, errors.ArchiveCorrupt, errors.NoPodAvailable),
    *(errors.Overloaded, errors.DeadlineExceeded, errors.ContractBroken),
)


def labels_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter()

    @router.put(
        "/models/{model}/labels/{label}",
        tags=["labels"],
        summary="Release: move a label to a version that a pod has proved",
        responses=problems(*CHANGE_ERRORS, *LOAD_ERRORS),
    )
    async def release(model: Model, label: Label, move: LabelMove, caller: CallerOf, timeout: TimeoutOf) -> ReleaseView:
        """A pod loads the version and its golden answers are compared; then the proof is stored. The pod also compares
        the version with the one that the label points at; then the label moves.

        Where its own answers differ from the published ones, or it fails, is not finite or has other fields or types
        where the version before it does not, the label stays. So it does where the version breaks what consumers rely
        on, or where the label is protected and asks for more than is there. A version that was proved before is not
        proved again.
        """
        gateway = current()
        deadline = deadline_of(timeout, gateway.settings)
        return await gateway.releaser.release(model, label, move, caller, deadline=deadline)

    @router.post(
        "/models/{model}/labels/{label}/rollback",
        tags=["labels"],
        summary="Undo the newest release of a label that is not undone yet, or go back to a version that had it",
        responses=problems(*CHANGE_ERRORS),
    )
    async def rollback(model: Model, label: Label, caller: CallerOf, move: RollbackMove | None = None) -> ChangeView:
        writer, move = current().writer, move or RollbackMove()
        name, change = await writer.change(
            writer.registry.rollback,
            model,
            label=label,
            to=move.to,
            if_currently=move.if_currently,
            note=move.note,
            by=caller.by,
            op_id=caller.op_id,
        )
        return ChangeView.of(name, change.entry)

    @router.get(
        "/models/{model}/serving",
        tags=["serving"],
        summary="How a model's versions are served",
        responses=problems(errors.InvalidReference, errors.ModelNotFound, errors.RegistryUnavailable),
        response_model_exclude_unset=True,
    )
    async def show_serving(model: Model) -> ServingView:
        reader = current().reader
        name, state, records = await reader.call(_served, reader.registry, model, "*")
        return ServingView.of(name, state, records, None)

    @router.patch(
        "/models/{model}/serving",
        tags=["serving"],
        summary="Change how versions are served, without publishing again",
        responses=problems(*CHANGE_ERRORS),
        response_model_exclude_unset=True,
    )
    async def change_serving(model: Model, patch: ServingPatch, caller: CallerOf) -> ServingView:
        """`pinned` keeps a version loaded whatever else wants memory; setting it to false unpins."""
        writer = current().writer
        name, change = await writer.change(
            writer.registry.set_serving,
            model,
            version=patch.version,
            set_fields=patch.set.model_dump(mode="json", exclude_unset=True),
            unset=patch.unset,
            note=patch.note,
            by=caller.by,
            op_id=caller.op_id,
        )
        _, _, records = await writer.call(_served, writer.registry, name, patch.version)
        return ServingView.of(name, change.state, records, ChangeView.of(name, change.entry))

    @router.delete(
        "/models/{model}/versions/{version}",
        tags=["versions"],
        summary="Delete a version: refused everywhere within 2 seconds",
        responses=problems(*CHANGE_ERRORS),
    )
    async def delete_version(
        model: Model, version: Version, caller: CallerOf, note: NoteOf = None, force: Force = False
    ) -> ChangeView:
        """Its name and id stay taken; its bytes go with the next `marway gc` but one, a day later."""
        writer = current().writer
        name, change = await writer.change(
            writer.registry.delete, model, version, note=note, forced=force, by=caller.by, op_id=caller.op_id
        )
        return ChangeView.of(name, change.entry)

    @router.delete(
        "/models/{model}/versions",
        tags=["versions"],
        summary="Delete a model whole: all its versions are refused everywhere within 2 seconds",
        responses=problems(*CHANGE_ERRORS),
    )
    async def delete_model(
        model: Model, caller: CallerOf, note: NoteOf = None, force: ForceModel = False
    ) -> DeletionView:
        """Refused where labels point at versions or published graphs name them, unless it is forced. What was cut
        off goes on when it is asked for again. The name can be used again, for versions that it has not had.
        """
        writer = current().writer
        name, changes = await writer.changes(
            writer.registry.delete_model, model, note=note, forced=force, by=caller.by, op_id=caller.op_id
        )
        return DeletionView(model=name, deleted=tuple(ChangeView.of(name, each.entry) for each in changes))

    return router


def _served(registry: Registry, model: str, version: str) -> tuple[str, ModelState, list[VersionRecord]]:
    """Read a model's state and the records of one version, or of all that are not deleted. Blocks."""
    name = registry.find(check_model_id(model))
    state = registry.state(name)
    versions = registry.versions(name) if version == "*" else (check_version(version),)
    return name, state, [registry.record(name, each) for each in versions if each not in state.tombstones]
