"""What becomes of a divided label when a state changes. Pure functions of states."""

from __future__ import annotations

from marway.errors import StateConflict
from marway.records import ModelState
from marway.traffic import ShadowRule, Traffic

__all__ = [
    "check_free_to_delete",
    "check_free_to_move",
    "divided",
    "labelled",
    "paused",
    "with_shadow",
    "without_deleted",
    "without_rollout",
    "without_shadow",
]


def labelled(state: ModelState, label: str, version: str) -> ModelState:
    """Return the state with a label at a version. A rollout must have ended; the version gets no copies of itself."""
    moved = state.model_copy(update={"labels": {**state.labels, label: version}})
    traffic = state.traffic.get(label)
    return moved if traffic is None else divided(moved, label, without_shadow(traffic, version))


def without_shadow(traffic: Traffic, version: str) -> Traffic:
    """Return how a label is divided where a version gets no copies any more."""
    return traffic.model_copy(update={"shadow": tuple(rule for rule in traffic.shadow if rule.version != version)})


def without_rollout(state: ModelState, label: str) -> ModelState:
    """Return the state with a label's rollout ended; copies go on to other versions than its candidate."""
    old = state.traffic[label]
    kept = tuple(rule for rule in old.shadow if rule.version != old.candidate)
    return divided(
        state, label, Traffic(sticky=old.sticky, shadow=kept, began=old.began, step_began=old.began, by=old.by)
    )


def divided(state: ModelState, label: str, traffic: Traffic) -> ModelState:
    """Return the state with a label so divided; with neither a rollout nor a copy there is nothing to say."""
    others = {name: each for name, each in state.traffic.items() if name != label}
    is_divided = traffic.rollout is not None or bool(traffic.shadow)
    return state.model_copy(update={"traffic": {**others, label: traffic} if is_divided else others})


def paused(state: ModelState, label: str, traffic: Traffic, reason: str) -> ModelState:
    """Return the state with a label's rollout waiting for a person, and why."""
    return divided(state, label, traffic.model_copy(update={"status": "paused", "reason": reason}))


def with_shadow(traffic: Traffic, rule: ShadowRule) -> Traffic:
    """Return how a label is divided where a version gets so many copies; none at 0 %."""
    left = without_shadow(traffic, rule.version)
    return left.model_copy(update={"shadow": (*left.shadow, rule)}) if rule.percent > 0 else left


def check_free_to_move(model: str, state: ModelState, label: str, version: str) -> None:
    """Refuse to move a label by hand while a rollout decides where it goes.

    Raises:
        StateConflict: A rollout runs, or is paused.
    """
    traffic = state.traffic.get(label)
    if traffic is None or traffic.rollout is None or version == state.labels.get(label):
        return
    way = f"{model} --label {label}"
    how = (
        f"`marway rollout promote {way}` moves the label now"
        if version == traffic.candidate
        else f"end it first with `marway rollout abort {way}`"
    )
    raise StateConflict(
        f"a rollout of {model} {traffic.candidate} decides where {label} goes ({traffic.status}, {traffic.percent:g} % "
        f"of requests); {label} stays at {state.labels.get(label)}: {how}",
        model=model,
        version=version,
    )


def check_free_to_delete(model: str, state: ModelState, version: str, *, forced: bool) -> None:
    """Refuse to delete what a rollout needs, and, unless ``forced``, what gets copies.

    Raises:
        StateConflict: With the label, and how to end it.
    """
    for label, traffic in sorted(state.traffic.items()):
        if traffic.rollout is not None and version in (traffic.base, traffic.candidate):
            raise StateConflict(
                f"{model} {version} is part of the rollout of {traffic.candidate} to {label}: end it first with "
                f"`marway rollout abort {model} --label {label}`, then delete",
                model=model,
                version=version,
            )
        if not forced and any(rule.version == version for rule in traffic.shadow):
            raise StateConflict(
                f"{model} {version} gets shadow copies of {label}: end that first with `marway shadow stop {model} "
                f"{version} --label {label}`, or delete it with them (--force)",
                model=model,
                version=version,
            )


def without_deleted(state: ModelState, version: str) -> ModelState:
    """Return the state with nothing divided for labels that are gone, nor copied to a version that was deleted."""
    for label, traffic in state.traffic.items():
        kept = without_shadow(traffic, version) if label in state.labels else traffic.model_copy(update={"shadow": ()})
        state = divided(state, label, kept)
    return state
