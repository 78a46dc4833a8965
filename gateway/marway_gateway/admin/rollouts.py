"""Admin routes of rollouts: a label goes to another version step by step, and comes back by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Query

from marway import errors
from marway.registry import Change
from marway_gateway.admin.labels import CHANGE_ERRORS, LOAD_ERRORS
from marway_gateway.admin.parameters import CallerOf, Model, TimeoutOf, deadline_of
from marway_gateway.admin.rollout_views import RolloutStart, RolloutStartView, RolloutTurn, RolloutView
from marway_gateway.admin.views import ChangeView, PodLoadView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.openapi import Label, problems

__all__ = ["rollouts_router"]

Which = Annotated[str | None, Query(max_length=64, description="The id of one; else the newest of the label.")]
_TURN: Final = (*CHANGE_ERRORS, errors.RolloutNotFound)


def rollouts_router(current: CurrentGateway) -> APIRouter:
    """Return the routes."""
    router = APIRouter(prefix="/models/{model}/labels/{label}/rollout", tags=["rollouts"])

    @router.post(
        "",
        summary="Start a rollout: a label goes to another version step by step",
        responses=problems(*CHANGE_ERRORS, *LOAD_ERRORS),
    )
    async def start(
        model: Model, label: Label, start: RolloutStart, caller: CallerOf, timeout: TimeoutOf
    ) -> RolloutStartView:
        """A pod loads the candidate, proves it and compares it with the label's version, as in a release. Then the
        first step's percent of the label's requests go to it wherever a pod has it ready.
        """
        gateway = current()
        deadline = deadline_of(timeout, gateway.settings)
        change, loads, comparison = await gateway.releaser.start_rollout(model, label, start, caller, deadline=deadline)
        name = await gateway.writer.call(gateway.writer.registry.find, model)
        begun = change.entry.rollout.id if change.entry.rollout is not None else None
        return RolloutStartView(
            rollout=await _status(gateway, name, label, begun),
            change=ChangeView.of(name, change.entry),
            loads=tuple(PodLoadView.of(each) for each in loads),
            comparison=comparison,
        )

    @router.get(
        "",
        summary="How a rollout stands, or how the newest one ended",
        responses=problems(
            *(errors.InvalidReference, errors.InvalidInput, errors.ModelNotFound, errors.RolloutNotFound),
            errors.RegistryUnavailable,
        ),
    )
    async def status(model: Model, label: Label, rollout: Which = None) -> RolloutView:
        return await _status(current(), model, label, rollout)

    def turn(action: str, operation: Callable[[Gateway], Callable[..., Change]], summary: str) -> None:
        @router.post(f"/{action}", summary=summary, responses=problems(*_TURN), operation_id=f"{action}_rollout")
        async def done(model: Model, label: Label, caller: CallerOf, turn: RolloutTurn | None = None) -> ChangeView:
            gateway, turn = current(), turn or RolloutTurn()
            name, change = await gateway.writer.change(
                operation(gateway),
                model,
                label=label,
                rollout=turn.rollout,
                reason=turn.note,
                by=caller.by,
                op_id=caller.op_id,
            )
            return ChangeView.of(name, change.entry)

    turn("promote", lambda gateway: gateway.writer.registry.promote_rollout, "Move the label to the candidate now")
    turn("abort", lambda gateway: gateway.writer.registry.abort_rollout, "End a rollout: all requests go to the base")
    turn("pause", lambda gateway: gateway.writer.registry.pause_rollout, "Let a rollout stay at its step")
    turn("resume", lambda gateway: gateway.writer.registry.resume_rollout, "Let a paused rollout go on")
    return router


async def _status(gateway: Gateway, model: str, label: str, rollout: str | None) -> RolloutView:
    registry = gateway.reader.registry
    status, traffic = await gateway.reader.call(registry.rollout_status, model, label=label, rollout=rollout)
    view = RolloutView.model_validate(status.model_dump())
    if traffic is None:
        return view
    running = gateway.rollouts.of(status.model, label, traffic)
    evidence = await gateway.rollout_watcher.evidence(running, read=True)
    told = {guard: each.model_dump() for guard, each in evidence.items()}
    return view.model_copy(update={"evidence": told, "step_s": running.step_s})
