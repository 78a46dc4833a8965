"""Admin routes of rollouts: a label goes to another version step by step, and comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Annotated, Final

from fastapi import APIRouter, Query

from marway import errors
from marway.errors import MarwayError
from marway.records import utc_now
from marway.refs import new_ulid
from marway.registry import Change
from marway.registry.traffic.reports import RolloutReport
from marway.traffic import RolloutAction
from marway_gateway.admin.labels import CHANGE_ERRORS, LOAD_ERRORS
from marway_gateway.admin.parameters import CallerOf, Model, TimeoutOf, deadline_of
from marway_gateway.admin.traffic.course import RolloutCourseView, course_of
from marway_gateway.admin.traffic.planning import plan_rollout
from marway_gateway.admin.traffic.views import RolloutStart, RolloutStartView, RolloutTurn, RolloutView
from marway_gateway.admin.views import ChangeView, PodLoadView
from marway_gateway.gateway import CurrentGateway, Gateway
from marway_gateway.openapi import Label, problems
from marway_gateway.traffic.rollouts.running import Running

__all__ = ["rollout_course", "rollout_standing", "rollouts_router"]

Which = Annotated[str | None, Query(max_length=64, description="The id of one; else the newest of the label.")]
OnlyPlan = Annotated[bool, Query(description="Only say what would be done, and noticed; start nothing.")]
Rate = Annotated[
    float | None,
    Query(ge=0, description="With `plan`: for so many requests a second, not those that come in the next 2 seconds."),
]
_REPORT_S: Final = 2.0
_READ: Final = (
    *(errors.InvalidReference, errors.InvalidInput, errors.ModelNotFound, errors.RolloutNotFound),
    errors.RegistryUnavailable,
)
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
        model: Model,
        label: Label,
        start: RolloutStart,
        caller: CallerOf,
        timeout: TimeoutOf,
        plan: OnlyPlan = False,
        rate: Rate = None,
    ) -> RolloutStartView:
        """A pod loads the candidate, proves it and compares it with the label's version, as in a release. Then the
        first step's percent of the label's requests go to it wherever a pod has it ready.
        """
        gateway = current()
        deadline = deadline_of(timeout, gateway.settings)
        if plan:
            found, base = await plan_rollout(gateway, model, label, start, rate_per_s=rate)
            return RolloutStartView(plan=found, base=base, rollout=None, change=None, loads=(), comparison=None)
        if rate is not None:
            raise errors.InvalidRequest("a rate is for a plan: give plan=true with it, or leave it out")
        change, loads, comparison = await gateway.releaser.start_rollout(model, label, start, caller, deadline=deadline)
        name = await gateway.writer.call(gateway.writer.registry.find, model)
        begun = change.entry.rollout.id if change.entry.rollout is not None else None
        return RolloutStartView(
            plan=None,
            base=change.entry.from_version or "",
            rollout=await _status(gateway, name, label, begun),
            change=ChangeView.of(name, change.entry),
            loads=tuple(PodLoadView.of(each) for each in loads),
            comparison=comparison,
        )

    @router.get(
        "",
        summary="How a rollout stands, or how the newest one ended",
        responses=problems(*_READ),
    )
    async def status(model: Model, label: Label, rollout: Which = None) -> RolloutView:
        return await _status(current(), model, label, rollout)

    @router.get(
        "/course",
        summary="How the evidence of a rollout came about",
        operation_id="rollout_course",
        responses=problems(*_READ),
    )
    async def course(model: Model, label: Label, rollout: Which = None) -> RolloutCourseView:
        """As the gateways saw it that decided something, and this one; at most a few hundred points."""
        return (await rollout_course(current(), model, label, rollout))[1]

    def turn(action: RolloutAction, operation: Callable[[Gateway], Callable[..., Change]], summary: str) -> None:
        @router.post(f"/{action}", summary=summary, responses=problems(*_TURN), operation_id=f"{action}_rollout")
        async def done(model: Model, label: Label, caller: CallerOf, turn: RolloutTurn | None = None) -> ChangeView:
            gateway, turn = current(), turn or RolloutTurn()
            op_id = caller.op_id or new_ulid()
            await _report(gateway, model, label, op_id, action, turn.note)
            name, change = await gateway.writer.change(
                operation(gateway),
                model,
                label=label,
                rollout=turn.rollout,
                reason=turn.note,
                by=caller.by,
                op_id=op_id,
            )
            return ChangeView.of(name, change.entry)

    turn("promote", lambda gateway: gateway.writer.registry.promote_rollout, "Move the label to the candidate now")
    turn("abort", lambda gateway: gateway.writer.registry.abort_rollout, "End a rollout: all requests go to the base")
    turn("pause", lambda gateway: gateway.writer.registry.pause_rollout, "Let a rollout stay at its step")
    turn("resume", lambda gateway: gateway.writer.registry.resume_rollout, "Let a paused rollout go on")
    return router


async def rollout_course(
    gateway: Gateway, model: str, label: str, rollout: str | None
) -> tuple[RolloutView, RolloutCourseView]:
    """Return how a rollout stands, and how its evidence came about.

    Raises:
        RolloutNotFound: There was none, or not that one.
        MarwayError: It cannot be read.
    """
    view, running = await rollout_standing(gateway, model, label, rollout)
    seen = running.course.points if running is not None else ()
    return view, await gateway.reader.call(course_of, gateway.reader.registry, view, seen)


async def _status(gateway: Gateway, model: str, label: str, rollout: str | None) -> RolloutView:
    return (await rollout_standing(gateway, model, label, rollout))[0]


async def rollout_standing(
    gateway: Gateway, model: str, label: str, rollout: str | None
) -> tuple[RolloutView, Running | None]:
    """Return how a rollout stands by what all gateways counted, and what is counted here; None for one that ended."""
    registry = gateway.reader.registry
    status, traffic = await gateway.reader.call(registry.rollout_status, model, label=label, rollout=rollout)
    view = RolloutView.model_validate(status.model_dump())
    if traffic is None:
        return view, None
    running = gateway.rollouts.of(status.model, label, traffic)
    evidence = await gateway.rollout_watcher.evidence(running, read=True)
    return view.model_copy(update={"evidence": evidence, "step_s": running.step_s}), running


async def _report(
    gateway: Gateway, model: str, label: str, op_id: str, action: RolloutAction, note: str | None
) -> None:
    """Keep how a rollout stands when a person changes it; the change is not held up where that cannot be known soon."""
    with contextlib.suppress(MarwayError, TimeoutError):
        async with asyncio.timeout(_REPORT_S):
            status, running = await rollout_standing(gateway, model, label, None)
            if running is None:
                return
            report = RolloutReport(
                op_id=op_id,
                at=utc_now(),
                action=action,
                step=status.step,
                percent=status.percent,
                step_s=running.step_s,
                reason=note,
                evidence=status.evidence,
                processes=1 + len(running.others),
                course=tuple(running.course.points),
            )
            store = gateway.writer.registry.store_report
            await gateway.writer.call(store, status.model, status.rollout, report)
