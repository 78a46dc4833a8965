"""`marway shadow`: copies of a label's requests go to a version whose answers nobody gets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import typer

from marway.process.identity import this_user
from marway.refs import DEFAULT_LABEL, check_label, check_model_name, check_version
from marway.shadow.report import ShadowReport, VersionReport, read_report
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
from marway_ops.shell.output import change_entry, history_entry, print_json, print_result, print_table, when

__all__ = ["shadow"]

shadow = typer.Typer(
    help="Send copies of a label's requests to a version, and see what it made of them.", no_args_is_help=True
)
Model = Annotated[str, typer.Argument(help="Model name.")]
Label = Annotated[str, typer.Option(help="Whose requests are copied.")]
_EXAMPLES = 5


@shadow.command()
def start(
    model: Model,
    version: Annotated[str, typer.Argument(help="Version that gets the copies.")],
    label: Label = DEFAULT_LABEL,
    percent: Annotated[
        float, typer.Option(min=0, max=100, help="Of the requests, how many in a hundred are copied.")
    ] = 100.0,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have copies sent; callers notice nothing of them. Through a gateway, a pod loads the version first."""
    check_model_name(model)
    check_version(version)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        body = {"version": version, "percent": percent, "note": note}
        entry = change_entry(client.call("POST", _path(model, label), body=body)["change"])
    else:
        change = opened_registry(registry).start_shadow(
            model, version, label=label, percent=percent, note=note, by=this_user()
        )
        entry = history_entry(change.entry)
    print_result(entry, f"{percent:g} % of the requests of {model} {label} are copied to {version}", as_json=as_json)


@shadow.command()
def stop(
    model: Model,
    version: Annotated[str | None, typer.Argument(help="Only copies to this version; else all.")] = None,
    label: Label = DEFAULT_LABEL,
    note: NoteOption = None,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have no more copies sent; the report stays."""
    check_model_name(model)
    check_label(label)
    if version is not None:
        check_version(version)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        params = {"version": version, "note": note}
        entry = change_entry(client.call("DELETE", _path(model, label), params=params))
    else:
        change = opened_registry(registry).stop_shadow(model, version, label=label, note=note, by=this_user())
        entry = history_entry(change.entry)
    to = "" if version is None else f" to {version}"
    print_result(entry, f"no requests of {model} {label} are copied{to} any more", as_json=as_json)


@shadow.command()
def report(
    model: Model,
    label: Label = DEFAULT_LABEL,
    registry: RegistryOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what copies told: whether the versions agree, where they differ, failures and times, of all gateways."""
    check_model_name(model)
    check_label(label)
    client = admin_if_any(gateway, registry, token=token, token_file=token_file)
    if client is not None:
        found = ShadowReport.model_validate(client.call("GET", _path(model, label)))
    else:
        found = read_report(opened_registry(registry), model, label)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    since = f"{'since' if found.running else 'that began at'} {when(found.began)} UTC"
    base = f", beside {found.base}" if found.base is not None else ""
    typer.echo(
        f"copies of requests of {found.model} {found.label}, {since}{base}; gateways' processes: {found.processes}"
    )
    for each in found.versions:
        _print_version(each)


def _path(model: str, label: str) -> str:
    return f"/models/{model}/labels/{label}/shadow"


def _print_version(found: VersionReport) -> None:
    copied = f"{found.percent:g} % of the requests" if found.percent is not None else "ended"
    typer.echo(f"\n{found.version} ({copied})")
    print_table(("", "version", "base"), _rows(found))
    for title, named in (
        ("fields that differ", found.fields),
        ("other fields or types", found.shapes),
        ("decisions", found.decisions),
        ("failures", found.errors),
    ):
        if named:
            print_table((title, "answers"), ((each.name, str(each.count)) for each in named))
    if found.dropped:
        print_table(("copies dropped", ""), ((name, str(count)) for name, count in sorted(found.dropped.items())))
    if found.examples:
        columns = ("example", "request", "prediction", "the base's", "")
        print_table(columns, (_example(each) for each in found.examples[:_EXAMPLES]))


def _rows(found: VersionReport) -> Iterator[Sequence[str]]:
    yield "answered", str(found.answered), ""
    yield "failed", str(found.failed), str(found.base_failed)
    yield "not finite", str(found.nonfinite), str(found.base_nonfinite)
    yield "compared", str(found.compared), ""
    yield "decide alike", _part(found.agreement), ""
    yield "are the same", _part(found.equal), ""
    yield "have other fields or types", str(found.shape_differs), ""
    if found.not_comparable:
        yield "not comparable: in pieces, or too large", str(found.not_comparable), ""
    for name in ("p50_ms", "p99_ms"):
        times = (getattr(each, name) for each in (found.latency, found.base_latency))
        yield f"{name.removesuffix('_ms')} of the model", *("—" if each is None else f"{each:.2f} ms" for each in times)


def _part(part: float | None) -> str:
    return "—" if part is None else f"{part:.2%}"


def _example(example: Any) -> tuple[str, ...]:
    ids = (example.request_id, example.prediction_id, example.base_prediction_id)
    return (example.kind, *(each or "—" for each in ids), example.text or "")
