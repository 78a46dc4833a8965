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
    check_label(label)
    registry.check_there()
    name = registry.find(model)
    current = registry.state(name).labels.get(label)
    comparison = Comparison(version=version, base=current, method="stored", not_compared="the release was forced")
    if not force:
        comparison = _compared(registry, name, version, label, current, comparison, unproved_first=unproved_first)
        if comparison.refused and if_currently in (None, current):
            raise refusal(comparison, model=name, label=label)
    change = registry.release(
        name,
        version,
        label=label,
        if_currently=if_currently if force else if_currently or current,  # what it was compared with
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
    check_label(label)
    registry.check_there()
    name = registry.find(model)
    current = registry.state(name).labels.get(label)
    comparison = Comparison(version=version, base=current, method="stored", not_compared="its start was forced")
    if not force and current is not None:
        comparison = _compared(registry, name, version, label, current, comparison, unproved_first=False)
        if comparison.refused and if_currently in (None, current):
            raise refusal(comparison, model=name, label=label)
    change = registry.start_rollout(
        name,
        version,
        label=label,
        if_currently=if_currently if force else if_currently or current,  # what it was compared with
        forced=force,
        require_proof=True,
        by=by,
        **asked,
    )
    return change, comparison


def _compared(
    registry: Registry,
    name: str,
    version: str,
    label: str,
    current: str | None,
    nothing: Comparison,
    *,
    unproved_first: bool,
) -> Comparison:
    if current == version:
        return nothing.model_copy(update={"not_compared": f"{label} is at {current} already"})
    try:
        record = registry.resolve(Reference(name, version))
    except VersionNotFound:
        return nothing  # which the release itself says better
    if not registry.is_proved(record) and not (unproved_first and current is None):
        return nothing  # refused for that
    base = registry.record(name, current) if current is not None else None
    return compare_stored(registry, record, base)
