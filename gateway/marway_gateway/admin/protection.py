"""Admin routes of protected labels: what they ask for before they move, and who agrees to a move."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from fastapi import APIRouter
from pydantic import Field
from pydantic.config import JsonDict

from marway import errors
from marway.protection.labels import ProtectionState
from marway_gateway.admin.labels import CHANGE_ERRORS
from marway_gateway.admin.parameters import CallerOf, Model, NoteOf
from marway_gateway.admin.views import AdminView, ChangeView, Note
from marway_gateway.gateway import CurrentGateway
from marway_gateway.json_models import examples
from marway_gateway.openapi import Label, problems

__all__ = ["protection_router"]

_ASKED: Final[JsonDict] = {"version": "1.1", "asked_by": ["ana@laptop"], "approved_by": ["bo@desk"]}
_PROTECTION: Final[JsonDict] = {
    "model": "intent",
    "label": "PROD",
    "version": "1.0",
    "protected": True,
    "approvals": 2,
    "require": ["pod", "contracts"],
    "freeze": ["Fri 16:00-Mon 08:00 Europe/Berlin"],
    "by": "root@admin",
    "at": "2026-11-30T12:00:00Z",
    "note": "customers rely on it",
    "versions": [_ASKED],
}


class ProtectionPatch(AdminView):
    """What a label asks for from now on."""

    model_config = examples({"approvals": 2, "require": ["pod"], "freeze": ["Fri 16:00-Mon 08:00 Europe/Berlin"]})

    approvals: int | None = Field(
        default=None,
        ge=0,
        le=20,
        description="How many have to agree, others than who published the version and who moves the label. "
        "What is left out stays as it is.",
    )
    require: tuple[str, ...] | None = Field(
        default=None,
        max_length=10,
        description="Proofs: `pod`, `replay`, `engines`, `contracts`; an empty list asks for none.",
        examples=[["pod", "contracts"]],
    )
    freeze: tuple[str, ...] | None = Field(
        default=None,
        max_length=20,
        description="When it does not move: days and times of each week, or dates, and a time zone; an empty list is "
        "never.",
        examples=[["Fri 16:00-Mon 08:00 Europe/Berlin", "2026-12-20 00:00-2027-01-02 08:00 UTC"]],
    )
    note: Note = None


class ApprovalMove(AdminView):
    """That somebody agrees to a label's move to a version, or takes that back."""

    model_config = examples({"version": "1.1", "note": "looked at the replay"})

    version: str = Field(max_length=128, description="A version; it must be published.", examples=["1.1"])
    withdraw: bool = Field(default=False, description="Take back what was agreed.")
    note: Note = None


class ApprovalsView(AdminView):
    """Who asked for a version, and who agreed to it."""

    model_config = examples(_ASKED)

    version: str
    asked_by: tuple[str, ...]
    approved_by: tuple[str, ...]


class ProtectionView(AdminView):
    """How a label is protected."""

    model_config = examples(_PROTECTION)

    model: str
    label: str
    version: str | None = Field(description="Where it is; null where it is not set.")
    protected: bool
    approvals: int
    require: tuple[str, ...]
    freeze: tuple[str, ...]
    by: str | None = Field(description="Who protected it last; null where it is not.")
    at: datetime | None
    note: str | None
    versions: tuple[ApprovalsView, ...] = Field(description="What was asked and agreed.")

    @classmethod
    def of(cls, found: ProtectionState) -> ProtectionView:
        """Return the view of a label."""
        return cls.model_validate(found.document())


def protection_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/models/{model}/labels/{label}", tags=["protection"])

    @router.get(
        "/protection",
        summary="What a label asks for before it moves",
        responses=problems(errors.InvalidReference, errors.ModelNotFound, errors.RegistryUnavailable),
    )
    async def show_protection(model: Model, label: Label) -> ProtectionView:
        writer = current().writer
        return ProtectionView.of(await writer.call(writer.registry.protection, model, label=label))

    @router.patch(
        "/protection",
        summary="Protect a label: what it asks for before it moves",
        responses=problems(*CHANGE_ERRORS),
    )
    async def protect(model: Model, label: Label, patch: ProtectionPatch, caller: CallerOf) -> ChangeView:
        """Sign-off by others, proofs, and times at which it does not move. All hold for every release and rollout,
        forced or not; a rollback is never held up.
        """
        writer = current().writer
        name, change = await writer.change(
            writer.registry.protect,
            model,
            label=label,
            approvals=patch.approvals,
            require=patch.require,
            freeze=patch.freeze,
            note=patch.note,
            by=caller.by,
            op_id=caller.op_id,
        )
        return ChangeView.of(name, change.entry)

    @router.delete(
        "/protection",
        summary="Let a label move without being asked for anything",
        responses=problems(*CHANGE_ERRORS),
    )
    async def unprotect(
        model: Model,
        label: Label,
        caller: CallerOf,
        note: NoteOf = None,
    ) -> ChangeView:
        writer = current().writer
        name, change = await writer.change(
            writer.registry.unprotect, model, label=label, note=note, by=caller.by, op_id=caller.op_id
        )
        return ChangeView.of(name, change.entry)

    @router.post(
        "/approvals",
        summary="Agree to a label's move to a version",
        responses=problems(*CHANGE_ERRORS),
    )
    async def approve(model: Model, label: Label, move: ApprovalMove, caller: CallerOf) -> ChangeView:
        """It is bound to the version's bytes, and ends when the label moves there. What the version's publisher and
        who moves the label agree to does not count.
        """
        writer = current().writer
        name, change = await writer.change(
            writer.registry.approve,
            model,
            move.version,
            label=label,
            withdraw=move.withdraw,
            note=move.note,
            by=caller.by,
            op_id=caller.op_id,
        )
        return ChangeView.of(name, change.entry)

    return router
