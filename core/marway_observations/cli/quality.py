"""`marway quality MODEL`: how good each version's answers turned out to be."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from marway.errors import InvalidInput, clip
from marway.records import utc_now
from marway.refs import check_label
from marway.registry import open_registry
from marway.serving import QualityRule
from marway_observations.cli.options import ObservationsOption
from marway_ops.shell.options import JsonOption, RegistryOption, registry_url
from marway_ops.shell.output import print_json, print_table, warn, when

if TYPE_CHECKING:
    from marway_observations.evaluate.results import Quality
    from marway_observations.quality.model_quality import Rules

__all__ = ["quality"]

_KINDS: Final = {
    "accuracy": "classification",
    "precision": "classification",
    "recall": "classification",
    "f1": "classification",
    "auc": "classification",
    "mae": "regression",
    "rmse": "regression",
    "mape": "regression",
    "r2": "regression",
    "mean": "score",
}
_UNDECLARED: Final = (QualityRule(kind="correct"), QualityRule(kind="score"))
"""What needs no rule: feedback says it all."""


def quality(
    model: Annotated[str, typer.Argument(help="Model name.")],
    version: Annotated[str | None, typer.Option(help="Only this version; else all that answered.")] = None,
    label: Annotated[str | None, typer.Option(help="Only predictions that this label led to a version.")] = None,
    window: Annotated[
        str | None, typer.Option(metavar="TIME", help="How far back predictions count, such as 24h; else as rules say.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help=f"Only this figure, declared or not: {', '.join(_KINDS)}.")] = None,
    prediction: Annotated[
        str | None, typer.Option(metavar="JMESPATH", help="Where an answer has the predicted value; else as rules say.")
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(metavar="JMESPATH", help="Where a truth has the true value; else as rules say."),
    ] = None,
    positive: Annotated[
        str | None, typer.Option(metavar="CLASS", help="The class that precision, recall, f1 and auc are about.")
    ] = None,
    lost: Annotated[
        bool,
        typer.Option("--unmatched", help="Also count feedback that no prediction was kept for, of any model."),
    ] = False,
    registry: RegistryOption = None,
    observations: ObservationsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show how good each version's answers turned out to be, by the feedback about them."""
    from marway_observations.quality import quality_of, unmatched
    from marway_observations.store import open_observations

    if label is not None:
        check_label(label)
    if window is not None:
        _checked(QualityRule, kind="correct", window=window)
    given = {"prediction": prediction, "truth": truth, "positive": positive}
    paths = {name: each for name, each in given.items() if each is not None}
    if metric is None and paths:
        metric = "accuracy"

    def chosen(declared: Rules) -> Rules:
        rules = _of_metric(declared, metric, paths) if metric is not None else declared or _UNDECLARED
        return rules if window is None else tuple(rule.model_copy(update={"window": window}) for rule in rules)

    url = registry_url(registry)
    known = open_registry(url)
    name, now = known.find(model), utc_now()
    store = open_observations(url, observations)
    found = quality_of(store, known, name, at=now, version=version, chosen=chosen)
    without = unmatched(store, since=now - found.window, until=now) if lost else None
    results = [
        each
        for each in found.results
        if label in (None, each.label) and (_declared(each, found.rules) or each.known or each.unusable)
    ]
    for left in found.left_out:
        warn(f"{left.key} cannot be read and was left out: {left.why}")
    if as_json:
        print_json(
            {
                "model": name,
                "at": now.isoformat(),
                "results": [_document(each) for each in results],
                "unmatched": without,
                "left_out": [{"key": each.key, "why": each.why} for each in found.left_out],
            }
        )
    else:
        _print(name, results, since=when(now - found.window), until=when(now))
        if without is not None:
            typer.echo(f"pieces of feedback that came in that time and for which no prediction was kept: {without}")


def _declared(result: Quality, rules: dict[str, Rules]) -> bool:
    return rules[result.version] != _UNDECLARED


def _of_metric(declared: Rules, metric: str, paths: dict[str, str]) -> Rules:
    """Return the rules for one figure: as declared, else where others of its kind say that values are."""
    same = tuple(rule for rule in declared if rule.name == metric)
    if same and not paths:
        return same
    kind = _KINDS.get(metric)
    if kind is None:
        raise InvalidInput(f"{clip(metric, 40)!r} is no metric: use one of {', '.join(_KINDS)}")
    like = next((rule for rule in (*same, *declared) if rule.kind == kind), None)
    fields = {} if like is None else like.model_dump(exclude={"minimum", "maximum"})
    return (_checked(QualityRule, **{**fields, "kind": kind, "metric": metric, **paths}),)


def _checked(rule: type[QualityRule], **fields: Any) -> QualityRule:
    try:
        return rule(**fields)
    except ValueError as exc:
        # pydantic's own text is for programmers; what our checks say is its last part.
        errors = exc.errors() if hasattr(exc, "errors") else []
        raise InvalidInput(clip(errors[0]["msg"].removeprefix("Value error, ") if errors else str(exc), 300)) from exc


def _document(result: Quality) -> dict[str, Any]:
    return {**result.model_dump(mode="json", exclude={"model"}), "standing": result.standing}


def _print(model: str, results: list[Quality], *, since: str, until: str) -> None:
    if not results:
        example = json.dumps([{"kind": "classification", "prediction": "label", "minimum": 0.9}])
        typer.echo(
            f"nothing can be told of {model} yet: it takes predictions, feedback about them, and for feedback with a "
            f"`truth` a rule, such as: marway serving {model} --set observe=bodies --set 'quality={example}'"
        )
        return
    typer.echo(f"{model}, predictions from {since} to {until} UTC")
    print_table(
        ("version", "label", "metric", "value", "95 % between", "known", "missing", "bound", "standing"),
        (_row(each) for each in results),
    )
    for each in results:
        if each.label is None:
            for why, count in each.unusable.items():
                typer.echo(f"{each.version} {each.metric}: {count} more with a truth cannot be compared: {why}")


def _row(each: Quality) -> tuple[str, ...]:
    bounds = [f"≥ {each.minimum:g}"] if each.minimum is not None else []
    bounds += [f"≤ {each.maximum:g}"] if each.maximum is not None else []
    return (
        each.version,
        each.label or "all",
        each.metric,
        "-" if each.value is None else f"{each.value:.4g}",
        "-" if each.lower is None or each.upper is None else f"{each.lower:.4g} and {each.upper:.4g}",
        str(each.known),
        str(each.missing),
        ", ".join(bounds) or "-",
        _STANDING[each.standing].format(each.min_count),
    )


_STANDING: Final = {
    "met": "met",
    "breached": "breached",
    "unclear": "unclear: the interval leaves it open",
    "too_few": "not judged: fewer than {} known",
    "no_bound": "-",
}
