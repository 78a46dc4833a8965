"""`marway rollout start`: says what it will do and would notice, then begins."""

from __future__ import annotations

import math
from typing import Annotated, Any

import typer

from marway.admin_client import AdminClient
from marway.direct_release import start_rollout_directly
from marway.errors import InvalidInput, ReleaseRefused
from marway.process.identity import this_user
from marway.refs import DEFAULT_LABEL, check_label, check_model_name, check_version
from marway.serving import period
from marway.text import printable
from marway.traffic import GUARDS, STEPS, whole_steps
from marway.wire.comparison import Comparison, comparison_lines
from marway.wire.rollouts import RolloutPlan
from marway_ops.cli.rollouts.steering import LabelOption, ModelArgument
from marway_ops.cli.rollouts.words import plan_lines
from marway_ops.shell.options import (
    AdminOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    TokenFileOption,
    TokenOption,
    admin_if_any,
    opened_registry,
)
from marway_ops.shell.output import history_entry, print_json

__all__ = ["start"]

_STEPS = ",".join(f"{step:g}" for step in STEPS)


def start(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="Version that is to take the place of the label's.")],
    label: LabelOption = DEFAULT_LABEL,
    steps: Annotated[str, typer.Option(help="Percents of the label's requests; at 100 the label moves.")] = _STEPS,
    step_time: Annotated[
        str, typer.Option(metavar="TIME", help="A step that takes longer waits for a person, such as 90s or 15m.")
    ] = "60s",
    sticky: Annotated[
        str, typer.Option(help="What callers keep their side by: request, group or header:NAME.")
    ] = "request",
    guards: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[=LIMIT],…",
            help=f"What is watched, such as errors,disagreement=0.05: {', '.join(GUARDS)}. "
            "Else all that can be judged.",
        ),
    ] = None,
    alpha: Annotated[
        float, typer.Option(help="How often at most a candidate that is no worse is rolled back, 0 to 1.")
    ] = 0.01,
    shadow: Annotated[
        float,
        typer.Option(metavar="PERCENT", help="Of how many of the label's answers the candidate is asked too; 0: none."),
    ] = 100.0,
    policy: Annotated[
        str, typer.Option(help="steps, or thompson: the percent follows the scores of feedback.")
    ] = "steps",
    floor: Annotated[float, typer.Option(metavar="PERCENT", help="A policy gives the candidate at least this.")] = 0.0,
    cap: Annotated[float, typer.Option(metavar="PERCENT", help="A policy gives the candidate at most this.")] = 100.0,
    if_currently: Annotated[str | None, typer.Option(help="Only if the label is at this version.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what would be done; start nothing.")] = False,
    rate: Annotated[
        float | None,
        typer.Option(metavar="REQUESTS/S", min=0, help="Plan for so many requests, not those that come now."),
    ] = None,
    note: NoteOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also one that is not proved, or that was refused; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a rollout will do, how long that takes and what it would notice; then start it.

    A pod proves the version and compares it with the label's first, as for a release. Without a gateway the version
    must have been proved before, and nothing moves until a gateway runs.
    """
    check_model_name(model)
    check_version(version)
    check_label(label)
    asked: dict[str, Any] = {
        "steps": whole_steps(_percents(steps)),
        "step_time_s": _seconds(step_time),
        "sticky": sticky,
        "shadow_percent": shadow,
        "guards": _guards(guards),
        "alpha": alpha,
        "policy": policy,
        "floor": floor,
        "cap": cap,
        "note": note,
        "if_currently": if_currently,
    }
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    try:
        if client is not None:
            document = _through(client, model, version, label, asked, plan=plan, rate=rate, force=force, quiet=as_json)
        elif plan or rate is not None:
            raise InvalidInput("only a gateway knows how many requests come, and plans: give --gateway")
        else:
            change, comparison = start_rollout_directly(
                opened_registry(registry), model, version, label=label, force=force, by=this_user(), **asked
            )
            entry = history_entry(change.entry)
            begun = {**entry["rollout"], "base": entry["from"], "rollout": entry["rollout"]["id"]}
            document = {"plan": None, "rollout": begun, "comparison": comparison.model_dump(mode="json"), "loads": []}
    except ReleaseRefused as exc:
        if exc.comparison is not None:
            _say("\n".join(comparison_lines(exc.comparison)), quiet=as_json)
        raise
    if as_json:
        print_json(document)
        return
    if plan:
        return
    begun = document["rollout"]
    _say(f"started: {model} {version} gets {begun['percent']:g} % of {label}, in rollout {begun['rollout']}")
    for load in document["loads"]:
        if load["proved"]:
            _say(f"  {load['pod']} gave its {load['report']['examples']} golden answers")
    _say("\n".join(f"  {line}" for line in comparison_lines(Comparison.model_validate(document["comparison"]))))
    _say(f"follow it with: marway rollout watch {model} --label {label}")


def _through(
    client: AdminClient,
    model: str,
    version: str,
    label: str,
    asked: dict[str, Any],
    *,
    plan: bool,
    rate: float | None,
    force: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Have a gateway plan the rollout, show that, and have it start, unless only the plan is wanted."""
    path = f"/models/{model}/labels/{label}/rollout"
    body = {"version": version, "force": force, **asked}
    params = {"plan": "true", "rate": None if rate is None else f"{rate}"}
    planned = client.call("POST", path, body=body, params=params)
    known = RolloutPlan.model_validate(planned["plan"])
    lines = plan_lines(known, model=model, candidate=version, base=planned["base"], label=label)
    _say("\n".join(lines), quiet=quiet)
    if plan:
        return dict(planned)
    return {**client.call("POST", path, body=body), "plan": planned["plan"]}


def _say(text: str, *, quiet: bool = False) -> None:
    if not quiet:
        typer.echo(printable(text))


def _percents(text: str) -> list[float]:
    try:
        return [_number(part) for part in text.split(",")]
    except ValueError as exc:
        raise typer.BadParameter(f"{text!r} are no percents such as {_STEPS}", param_hint="--steps") from exc


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


def _seconds(text: str) -> float:
    try:
        return period(text).total_seconds()
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--step-time") from exc


def _guards(text: str | None) -> dict[str, float | None] | None:
    if text is None:
        return None
    guards: dict[str, float | None] = {}
    for part in text.split(","):
        name, equals, limit = part.strip().partition("=")
        try:
            guards[name] = _number(limit) if equals else None
        except ValueError as exc:
            raise typer.BadParameter(f"{part!r} is not NAME=LIMIT, such as errors=0.01", param_hint="--guards") from exc
    return guards
