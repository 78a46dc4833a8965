"""What a rollout would do and notice, at the rate at which requests come just now."""

from __future__ import annotations

import asyncio
import re
import time
from functools import partial
from typing import Final

from prometheus_client import generate_latest

from marway.refs import check_model_id
from marway.traffic import Traffic
from marway.wire.rollouts import RolloutPlan, StepPlan
from marway_gateway.admin.release import MADE
from marway_gateway.admin.traffic.views import RolloutStart
from marway_gateway.gateway import Gateway
from marway_gateway.traffic.evidence import plan_of

__all__ = ["plan_rollout"]

_LOOK_S: Final = 2.0
"""For so long requests are counted: a person waits for it."""
_COUNT: Final = re.compile(rb"^marway_gateway_request_duration_seconds_count\{(.*)\} (\S+)$", re.MULTILINE)


async def plan_rollout(
    gateway: Gateway, model: str, label: str, start: RolloutStart, *, rate_per_s: float | None
) -> tuple[RolloutPlan, str]:
    """Return what a rollout would do, and the label's version; nothing is changed.

    Args:
        gateway: Whose requests are counted, of all its processes.
        model: The model.
        label: The label.
        start: What is asked for.
        rate_per_s: Requests of the label a second; None has those counted that come in two seconds.

    Raises:
        MarwayError: As for the start itself.
    """
    registry = gateway.reader.registry
    asked = {**start.settings(), "if_currently": start.if_currently}
    plan = partial(registry.plan_rollout, check_model_id(model), start.version, label=label, by="plan", **asked)
    traffic = await gateway.reader.call(plan)
    name = await gateway.reader.call(registry.find, model)
    assert traffic.base is not None
    if rate_per_s is None:
        rate_per_s = await _rate(gateway, name, traffic.base)
    found = plan_of(
        traffic.guards,
        traffic.alpha,
        traffic.steps,
        rate_per_s,
        start.shadow_percent,
        step_time_s=traffic.step_time_s,
        sticky=traffic.sticky,
    )
    if traffic.policy == "thompson":
        found = _by_scores(found, traffic)
    lacking = await gateway.reader.call(partial(registry.move_lacks, name, start.version, label=label, made=MADE))
    if lacking is not None:
        found = found.model_copy(update={"notes": (*found.notes, f"It will not start yet: {lacking}.")})
    return found, traffic.base


def _by_scores(plan: RolloutPlan, traffic: Traffic) -> RolloutPlan:
    """Return the plan of a rollout that goes by scores: nobody knows how long it takes."""
    note = (
        f"From there on the percent is the probability that {traffic.candidate} is the better one by the scores of "
        f"feedback, between {traffic.floor:g} and {traffic.cap:g}, and moves at most every {traffic.step_time_s:g} s, "
        "until it is promoted or aborted by hand. A candidate that a guard finds worse is rolled back."
    )
    steps = (StepPlan(percent=traffic.percent, at_least_s=traffic.step_time_s),)
    kept = tuple(each for each in plan.notes if "a person" not in each)
    return plan.model_copy(update={"policy": "thompson", "steps": steps, "expected_s": None, "notes": (note, *kept)})


async def _rate(gateway: Gateway, model: str, version: str) -> float:
    before, at = await _answered(gateway, model, version), time.monotonic()
    await asyncio.sleep(_LOOK_S)
    return (await _answered(gateway, model, version) - before) / (time.monotonic() - at)


async def _answered(gateway: Gateway, model: str, version: str) -> float:
    """Return how many requests a version has answered, in all processes of this gateway."""
    metrics, peers = gateway.telemetry.metrics.registry, gateway.peers
    text = generate_latest(metrics) if peers is None else await peers.exposed(metrics)
    wanted = f'model="{model}",', f'version="{version}"'
    return sum(
        float(count) for labels, count in _COUNT.findall(text) if all(each.encode() in labels for each in wanted)
    )
