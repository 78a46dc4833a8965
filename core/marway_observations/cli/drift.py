"""`marway drift MODEL`: how far inputs and outputs have moved from what they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from marway.errors import InvalidInput, clip
from marway.records import VersionRecord
from marway.refs import check_version
from marway.registry import Registry, open_registry
from marway.serving import DriftRule
from marway_observations.cli.options import ObservationsOption
from marway_ops.shell.options import JsonOption, RegistryOption, registry_url
from marway_ops.shell.output import print_json, print_table, warn, when

if TYPE_CHECKING:
    from marway_observations.drift.results import DriftResult, FieldDrift

__all__ = ["drift"]

_NEW_MAX = 10


def drift(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[
        str | None, typer.Option(help="Version to look at; else all versions that labels point at.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="training|golden|TIME",
            help="Compare with training data, with golden examples, or with the window that ended so long before, "
            "such as 7d; else as the version's drift rule says, else training.",
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="How far back predictions count; else the rule's, or 24h."),
    ] = None,
    registry: RegistryOption = None,
    observations: ObservationsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how far inputs and outputs have moved from what they were, field by field."""
    from marway_observations.drift.evaluating import evaluate_version
    from marway_observations.store import open_observations

    url = registry_url(registry)
    known = open_registry(url)
    records = _versions(known, known.find(model), version)
    store = open_observations(url, observations)
    state = known.state(records[0].name)
    rules = [_rule(state.serving_for(record).drift, against, window) for record in records]
    found = [evaluate_version(store, known, record, rule) for record, rule in zip(records, rules, strict=True)]
    for each in dict.fromkeys(each for result in found for each in result.left_out):
        warn(f"left out, as it cannot be read: {each}")
    if as_json:
        print_json([result.model_dump(mode="json") for result in found])
        return
    for place, result in enumerate(found):
        if place:
            typer.echo("")
        _print(result)


def _versions(registry: Registry, model: str, version: str | None) -> list[VersionRecord]:
    if version is not None:
        return [registry.record(model, check_version(version))]
    labels = registry.state(model).labels
    if not labels:
        raise InvalidInput(f"no label points at a version of {model}: say which with --version", model=model)
    return [registry.record(model, each) for each in sorted(set(labels.values()))]


def _rule(declared: DriftRule | None, against: str | None, window: str | None) -> DriftRule:
    overridden = {name: value for name, value in (("against", against), ("window", window)) if value is not None}
    rule = {} if declared is None else declared.model_dump()
    try:
        return DriftRule(**{**rule, **overridden})
    except ValueError as exc:
        # pydantic's own text is for programmers; what our checks say is its last part.
        errors = exc.errors() if hasattr(exc, "errors") else []
        why = errors[0]["msg"].removeprefix("Value error, ") if errors else str(exc)
        raise InvalidInput(clip(why, 300)) from exc


def _print(result: DriftResult) -> None:
    typer.echo(
        f"{result.model} {result.version} against {result.against}, {when(result.since)} to {when(result.until)} UTC: "
        + _summary(result)
    )
    if result.fields:
        print_table(
            ("field", "kind", "psi", "ks", "by chance", "missing", "what changed"),
            (_row(field) for field in result.fields),
        )
    if result.new_fields:
        more = f" and {len(result.new_fields) - _NEW_MAX} more" if len(result.new_fields) > _NEW_MAX else ""
        typer.echo(f"fields that the reference does not have: {', '.join(result.new_fields[:_NEW_MAX])}{more}")
    if result.unreadable:
        typer.echo(f"{result.unreadable} of {result.rows} predictions had a body that could not be read")


def _summary(result: DriftResult) -> str:
    if result.status not in ("drifted", "steady"):
        return f"nothing can be said: {result.reason}"
    moved = sum(field.drifted for field in result.fields)
    verdict = f"{moved} of {len(result.fields)} fields drifted" if moved else f"steady in {len(result.fields)} fields"
    return f"{verdict}; {result.rows} of {result.predictions} predictions looked at"


def _row(field: FieldDrift) -> tuple[str, ...]:
    return (
        f"{field.field}{' ← drifted' if field.drifted else ''}",
        field.kind,
        f"{field.psi:.3f}",
        "-" if field.ks is None else f"{field.ks:.3f}",
        "never" if field.p_value == 0 else f"{field.p_value:.2g}",
        f"{field.missing * 100:.3g} %",
        field.change,
    )
