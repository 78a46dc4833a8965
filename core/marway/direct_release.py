"""A release, or the start of a rollout, without a gateway: in the registry itself, where no pod can be asked."""

from __future__ import annotations

from typing import Any

from marway.answers.comparison import compare_stored
from marway.errors import VersionNotFound
from marway.refs import Reference, check_label
from marway.registry import Change, Registry
from marway.wire.comparison import Comparison, refusal

__all__ = ["release_directly", "start_rollout_directly"]


def release_directly(
    registry: Registry,
    model: str,
    version: str,
    *,
    label: str,
    if_currently: str | None = None,
    note: str | None = None,
    force: bool = False,
    unproved_first: bool = False,
    by: str,
) -> tuple[Change, Comparison]:
    """Move a label to a version that a pod has proved, after a look at published golden answers. Blocks.

    The answers of the version and of the one that the label points at, to the inputs that both have, are compared;
    nothing is run. The arguments are those of `Registry.release`.

    Returns:
        The change, and the comparison, which says so where there was nothing to compare.

    Raises:
        ReleaseRefused: The version's answers hold NaN or an infinity, or have other fields or types, where those of
            the other do not; or it has none.
        MarwayError: As `Registry.release`.
    """
    name, nothing = _nothing_compared(registry, model, version, label, "the release was forced")
    comparison = nothing
    if not force:
        comparison = _compared(registry, name, label, nothing, if_currently, unproved_first=unproved_first)
    change = registry.release(
        name,
        version,
        label=label,
        if_currently=if_currently if force else if_currently or comparison.base,  # what it was compared with
        note=note,
        forced=force,
        require_proof=True,
        unproved_first=unproved_first,
        by=by,
    )
    return change, comparison


def start_rollout_directly(
    registry: Registry,
    model: str,
    version: str,
    *,
    label: str,
    if_currently: str | None = None,
    force: bool = False,
    by: str,
    **asked: Any,
) -> tuple[Change, Comparison]:
    """Start a rollout of a version that a pod has proved, after a look at published golden answers. Blocks.

    Arguments, results and errors are those of `Registry.start_rollout` and `release_directly`.
    """
    name, nothing = _nothing_compared(registry, model, version, label, "its start was forced")
    comparison = nothing
    if not force and nothing.base is not None:
        comparison = _compared(registry, name, label, nothing, if_currently)
    change = registry.start_rollout(
        name,
        version,
        label=label,
        if_currently=if_currently if force else if_currently or comparison.base,  # what it was compared with
        forced=force,
        require_proof=True,
        by=by,
        **asked,
    )
    return change, comparison


def _nothing_compared(registry: Registry, model: str, version: str, label: str, why: str) -> tuple[str, Comparison]:
    """Return the model's name as it is written, and that nothing was compared with the label's version, and why."""
    check_label(label)
    registry.check_there()
    name = registry.find(model)
    current = registry.state(name).labels.get(label)
    return name, Comparison(version=version, base=current, method="stored", not_compared=why)


def _compared(
    registry: Registry,
    name: str,
    label: str,
    nothing: Comparison,
    if_currently: str | None,
    *,
    unproved_first: bool = False,
) -> Comparison:
    """Return how a version compares with the label's, or ``nothing`` where the change itself is refused.

    Raises:
        ReleaseRefused: As `release_directly`, unless the label is not at ``if_currently`` anyway.
    """
    version, current = nothing.version, nothing.base
    if current == version:
        return nothing.model_copy(update={"not_compared": f"{label} is at {current} already"})
    try:
        record = registry.resolve(Reference(name, version))
    except VersionNotFound:
        return nothing  # which the release itself says better
    if not registry.is_proved(record) and not (unproved_first and current is None):
        return nothing  # refused for that
    base = registry.record(name, current) if current is not None else None
    comparison = compare_stored(registry, record, base)
    if comparison.refused and if_currently in (None, current):
        raise refusal(comparison, model=name, label=label)
    return comparison
