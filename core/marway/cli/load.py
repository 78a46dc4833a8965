"""`marway load`, `marway unload` and `marway pin`: versions on the pods."""

from __future__ import annotations

from typing import Annotated

import typer

from marway.cli.options import AdminOption, JsonOption, TokenFileOption, TokenOption, admin_client
from marway.cli.output import print_json
from marway.printable import printable
from marway.refs import DEFAULT_LABEL, parse_reference

__all__ = ["register"]

Version = Annotated[str, typer.Argument(metavar="MODEL[/REF]", help="MODEL (its PROD), MODEL/VERSION or MODEL/LABEL.")]
PodOption = Annotated[str | None, typer.Option(help="Only on this pod.")]


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("load")(load)
    app.command("unload")(unload)
    app.command("pin")(pin)


def load(
    reference: Version,
    pod: PodOption = None,
    prove: Annotated[bool, typer.Option("--prove", help="Compare its golden answers too, and store a proof.")] = False,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Load a version ahead of its requests, on the pods where they will go."""
    client = admin_client(gateway, token=token, token_file=token_file)
    params = {"pod": pod, "prove": "true" if prove else None}
    done = client.call("POST", f"{_path(reference)}/load", params=params)
    if as_json:
        print_json(done)
        return
    for each in done["loads"]:
        report = each["report"]
        line = f"{done['model']} {done['version']} is loaded on {each['pod']}, in {report['duration_s']:.2f} s"
        if each["proved"]:
            line += f", and gave its {report['examples']} golden answers" if report["examples"] else " (no examples)"
        typer.echo(printable(line))


def unload(
    reference: Version,
    pod: PodOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Unload a version once its requests have ended; the next one loads it again."""
    client = admin_client(gateway, token=token, token_file=token_file)
    done = client.call("POST", f"{_path(reference)}/unload", params={"pod": pod})
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{done['model']} {done['version']} is not loaded on {', '.join(done['pods']) or 'any pod'}")


def pin(
    reference: Version,
    off: Annotated[bool, typer.Option("--off", help="Let it be unloaded again.")] = False,
    note: Annotated[str | None, typer.Option(help="Why, for the history.")] = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a version loaded, whatever else wants its memory."""
    client = admin_client(gateway, token=token, token_file=token_file)
    found = client.call("GET", f"{_path(reference)}/pods")  # a label may move: the version is what is pinned
    name, version = found["model"], found["version"]
    body = {"version": version, "set": {"pinned": not off}, "note": note}
    done = client.call("PATCH", f"/models/{name}/serving", body=body)
    if as_json:
        print_json(done)
    else:
        typer.echo(f"{name} {version} is {'no longer pinned' if off else 'pinned'}")


def _path(text: str) -> str:
    reference = parse_reference(text)
    selector = reference.selector or DEFAULT_LABEL
    return f"/models/{reference.name}/versions/{selector}"
