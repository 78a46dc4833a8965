"""Verbs about the pods behind a gateway, and the versions on them: `marway pods`, `drain`, `load`, `unload`, `pin`."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any
from urllib.parse import quote

import typer

from marway.errors import InvalidInput, clip
from marway.refs import DEFAULT_LABEL, parse_reference
from marway.text import printable
from marway_ops.shell.options import AdminOption, JsonOption, NoteOption, TokenFileOption, TokenOption, admin_client
from marway_ops.shell.output import print_found, print_json, print_result

__all__ = ["drain", "load", "pin", "pods", "unload"]

_MIB = 1024 * 1024

Version = Annotated[str, typer.Argument(metavar="MODEL[/REF]", help="MODEL (its PROD), MODEL/VERSION or MODEL/LABEL.")]
PodOption = Annotated[str | None, typer.Option(help="Only on this pod.")]


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
    client = admin_client(gateway, token, token_file)
    if reference is not None:
        found = client.call("GET", f"{_path(reference)}/pods")
        shown: tuple[str, ...] = ("pod", "state", "workers", "memory", "pod's state")
        rows = map(_where, found["pods"])
        if any(each.get("node") for each in found["pods"]):  # a graph: no pod has it, but what its nodes ask
            shown = ("node", "model", *shown)
            rows = map(_asked_where, found["pods"])
        print_found(found, shown, rows, as_json=as_json)
        return
    listed = client.call("GET", "/pods")
    none = f"the gateway at {client.url} knows no pods: set MARWAY_GATEWAY_PODS or give --pods"
    columns = ("pod", "url", "backend", "server", "state", "models", "memory", "in flight")
    print_found(listed, columns, map(_pod, listed), as_json=as_json, none=none)


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
    client = admin_client(gateway, token, token_file)
    found = client.call("DELETE" if undo else "POST", f"/pods/{quote(pod, safe='')}/drain")
    line = f"{pod} takes requests again" if undo else f"{pod} drains: it takes no more requests"
    print_result(found, line, as_json=as_json)


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
    client = admin_client(gateway, token, token_file)
    params = {"pod": pod, "prove": "true" if prove else None}
    done = client.call("POST", f"{_path(reference)}/load", params=params)
    if as_json:
        print_json(done)
        return
    for each in done["loads"]:
        report = each["report"]
        loaded = report["model"]  # of a graph, what its nodes ask as well
        where = "runs in the gateway" if each["pod"] == "gateway" else f"is loaded on {each['pod']}"
        line = f"{loaded['name']} {loaded['version']} {where}, in {report['duration_s']:.2f} s"
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
    client = admin_client(gateway, token, token_file)
    done = client.call("POST", f"{_path(reference)}/unload", params={"pod": pod})
    line = f"{done['model']} {done['version']} is not loaded on {', '.join(done['pods']) or 'any pod'}"
    print_result(done, line, as_json=as_json)


def pin(
    reference: Version,
    off: Annotated[bool, typer.Option("--off", help="Let it be unloaded again.")] = False,
    note: NoteOption = None,
    gateway: AdminOption = None,
    token: TokenOption = None,
    token_file: TokenFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a version loaded, whatever else wants its memory."""
    client = admin_client(gateway, token, token_file)
    found = client.call("GET", f"{_path(reference)}/pods")  # a label may move: the version is what is pinned
    name, version = found["model"], found["version"]
    body = {"version": version, "set": {"pinned": not off}, "note": note}
    done = client.call("PATCH", f"/models/{name}/serving", body=body)
    print_result(done, f"{name} {version} is {'no longer pinned' if off else 'pinned'}", as_json=as_json)


def _path(text: str) -> str:
    reference = parse_reference(text)
    selector = reference.selector or DEFAULT_LABEL
    return f"/models/{reference.name}/versions/{selector}"


def _pod(pod: dict[str, Any]) -> tuple[str, ...]:
    status = pod["status"] or {}
    states = Counter(model["state"] for model in status.get("models", ()))
    models = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "-"
    state = "ready" if pod["eligible"] else pod["trouble"]
    in_flight = str(pod["requests_in_flight"])
    backend, server = status.get("backend", "-"), status.get("server_version") or "-"
    memory = _mib(status.get("memory_used_bytes", 0))
    return pod["name"], pod["url"], backend, server, state, models, memory, in_flight


def _where(entry: dict[str, Any]) -> tuple[str, ...]:
    model = entry["model"] or {}
    pod_state = "ready" if entry["eligible"] else entry["trouble"]
    workers, memory = str(model.get("workers", "-")), _mib(model.get("memory_bytes", 0))
    state = "parked" if model.get("parked") else model.get("state", "-")
    return entry["pod"], state, workers, memory, pod_state


def _asked_where(entry: dict[str, Any]) -> tuple[str, ...]:
    model = entry["model"]
    which = "-" if model is None else f"{model['name']} {model['version']}"
    return entry["node"], which, *_where(entry)


def _mib(size: int) -> str:
    return f"{size / _MIB:.0f} MiB" if size else "-"
