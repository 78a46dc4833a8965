"""`marway pods` and `marway drain`: the pods behind a gateway."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any
from urllib.parse import quote

import typer
from marway_ops.shell.options import AdminOption, JsonOption, TokenFileOption, TokenOption, admin_client
from marway_ops.shell.output import print_json, print_table

from marway.errors import InvalidInput, clip
from marway.refs import DEFAULT_LABEL, parse_reference

__all__ = ["register"]

_MIB = 1024 * 1024


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.command("pods")(pods)
    app.command("drain")(drain)


def pods(
    reference: Annotated[
        str | None, typer.Argument(metavar="[MODEL/REF]", help="Show where this version is instead.")
    ] = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the pods behind a gateway, or say on which of them a version is."""
    client = admin_client(gateway, token=token, token_file=token_file)
    if reference is not None:
        wanted = parse_reference(reference)
        found = client.call("GET", f"/models/{wanted.name}/versions/{wanted.selector or DEFAULT_LABEL}/pods")
        if as_json:
            print_json(found)
        else:
            print_table(("pod", "state", "workers", "memory", "pod's state"), map(_where, found["pods"]))
        return
    listed = client.call("GET", "/pods")
    if as_json:
        print_json(listed)
    elif not listed:
        typer.echo(f"the gateway at {client.url} knows no pods: set MARWAY_GATEWAY_PODS or give --pods")
    else:
        print_table(("pod", "url", "backend", "state", "models", "memory", "in flight"), map(_pod, listed))


def drain(
    pod: Annotated[str, typer.Argument(help="A pod's name, as `marway pods` shows it.")],
    undo: Annotated[bool, typer.Option("--undo", help="Have it take requests again.")] = False,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Have a pod finish its requests and take no more; every gateway hears of it from the pod."""
    if "/" in pod:
        raise InvalidInput(f"{clip(pod, 80)!r} cannot be a pod's name")
    client = admin_client(gateway, token=token, token_file=token_file)
    found = client.call("DELETE" if undo else "POST", f"/pods/{quote(pod, safe='')}/drain")
    if as_json:
        print_json(found)
    else:
        typer.echo(f"{pod} takes requests again" if undo else f"{pod} drains: it takes no more requests")


def _pod(pod: dict[str, Any]) -> tuple[str, ...]:
    status = pod["status"] or {}
    states = Counter(model["state"] for model in status.get("models", ()))
    models = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "-"
    state = "ready" if pod["eligible"] else pod["trouble"]
    in_flight = str(pod["requests_in_flight"])
    backend = status.get("backend", "-")
    return pod["name"], pod["url"], backend, state, models, _mib(status.get("memory_used_bytes", 0)), in_flight


def _where(entry: dict[str, Any]) -> tuple[str, ...]:
    model = entry["model"] or {}
    pod_state = "ready" if entry["eligible"] else entry["trouble"]
    return (
        entry["pod"],
        model.get("state", "-"),
        str(model.get("workers", "-")),
        _mib(model.get("memory_bytes", 0)),
        pod_state,
    )


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size else "-"
