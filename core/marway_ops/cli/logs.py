"""`marway logs`: what gateway, sidecars, runtimes and workers wrote, merged in the order of time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated

import typer

from marway.errors import InvalidInput
from marway.records import VersionRecord
from marway.refs import is_label, parse_reference, server_name
from marway.registry import Registry, open_registry
from marway.serving import moment
from marway.text import printable
from marway.wire.request import correlation_id
from marway_ops.cluster import NAMESPACE, Kubectl
from marway_ops.logs.causes import Causes
from marway_ops.logs.lines import COMPONENTS, LEVELS, Component, Line, Wanted
from marway_ops.logs.showing import show
from marway_ops.logs.sources import ClusterLogs, HomeLogs
from marway_ops.shell.options import DEFAULT_HOME, RegistryOption, registry_url

__all__ = ["logs"]

_FOLLOW_INTERVAL_S = 0.25


def logs(
    model: Annotated[
        str | None, typer.Argument(help="MODEL (all its versions), MODEL/VERSION, MODEL/LABEL or an id; else all.")
    ] = None,
    home: Annotated[Path, typer.Option(help="Home of the `marway up` whose logs they are.")] = DEFAULT_HOME,
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Show only what was written about this request.")
    ] = None,
    level: Annotated[str, typer.Option(help=f"Show lines of this level and above: {', '.join(LEVELS)}.")] = "debug",
    since: Annotated[str | None, typer.Option(help="From when on: 10m, 24h, or a time in ISO 8601.")] = None,
    until: Annotated[str | None, typer.Option(help="Up to when, as --since.")] = None,
    component: Annotated[
        list[str] | None, typer.Option(help=f"Show lines of this one: {', '.join(COMPONENTS)}. May be repeated.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Show at most this many, the newest.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new lines come, until Ctrl-C.")] = False,
    cluster: Annotated[bool, typer.Option("--cluster", help="Read a Kubernetes cluster, through kubectl.")] = False,
    namespace: Annotated[str | None, typer.Option(help=f"Namespace to look in; {NAMESPACE} by default.")] = None,
    context: Annotated[str | None, typer.Option(help="kubectl's context; its current one by default.")] = None,
    registry: RegistryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what gateway, sidecars, runtimes and handlers wrote, in the order of time; why a load failed comes first."""
    for flag, value in (("--namespace", namespace), ("--context", context)):
        if value is not None and not cluster:
            raise typer.BadParameter("it goes with --cluster", param_hint=flag)
    if follow and until is not None:
        raise typer.BadParameter("what is followed has no end: leave --until or --follow away", param_hint="--until")
    names: dict[str, tuple[str, str]] = {}
    if model is not None:
        if not cluster:
            HomeLogs(home, {})  # says that nothing ran there before anything else is asked for
        local = home / "registry"
        beside = not cluster and local.is_dir()
        url = registry or (local.absolute().as_uri() if beside else registry_url(None))
        names = _names(open_registry(url), model)
    wanted = _wanted(request, level, since, until, component or [], frozenset(names.values()) if model else None)
    source = (
        ClusterLogs(Kubectl(namespace=namespace or NAMESPACE, context=context), wanted.since if since else None)
        if cluster
        else HomeLogs(home, names)
    )
    with closing(source):
        shown = _show_past(source.new(), wanted, lines, as_json=as_json)
        if not shown and not follow:
            about = "" if request is None else f" for request {request}"
            typer.echo(f"nothing was printed{about or ' yet'}", err=True)
        for line in _coming(source) if follow else ():
            if wanted.has(line):
                show(line, as_json=as_json)


def _coming(source: HomeLogs | ClusterLogs) -> Iterator[Line]:
    """Yield lines as they come, for ever."""
    if isinstance(source, ClusterLogs):
        yield from source.follow()
    while isinstance(source, HomeLogs):
        time.sleep(_FOLLOW_INTERVAL_S)  # logs are files: there is nothing to wait on but their growth
        yield from sorted(source.new(), key=lambda line: line.at)


def _show_past(found: Iterator[Line], wanted: Wanted, most: int, *, as_json: bool) -> bool:
    """Show the newest of the lines that there are, as far as they are wanted; return whether there were any."""
    causes = Causes()
    newest: deque[Line] = deque()
    for line in found:
        causes.see(line)
        if wanted.has(line):
            newest.append(line)
            if len(newest) >= 2 * most + 1000:  # what is read file by file is sorted now and then, to hold few
                newest = deque(sorted(newest, key=lambda line: line.at)[-most:])
    chosen = sorted(newest, key=lambda line: line.at)[-most:]
    first = [each for each in causes.of(chosen) if wanted.may_explain(each)]
    for cause in first:
        if not as_json:
            about = f"{cause.record.get('model')} {cause.record.get('version')}"
            typer.echo(f"why {printable(about)} could not be loaded:")
        show(cause, as_json=as_json)
    if first and not as_json:
        typer.echo("")
    for line in chosen:
        if not any(line is cause for cause in first):
            show(line, as_json=as_json)
    return bool(chosen)


def _wanted(
    request: str | None,
    level: str,
    since: str | None,
    until: str | None,
    components: list[str],
    versions: frozenset[tuple[str, str]] | None,
) -> Wanted:
    if request is not None and correlation_id(request) is None:
        raise InvalidInput(f"{request!r} cannot be a request's id: a problem document has it as `request_id`")
    if level not in LEVELS:
        raise InvalidInput(f"{level!r} is no level: give one of {', '.join(LEVELS)}")
    known: dict[str, Component] = {each: each for each in COMPONENTS}
    for each in components:
        if each not in known:
            raise InvalidInput(f"{each!r} is no component: give one of {', '.join(COMPONENTS)}")
    now = datetime.now(timezone.utc)
    plain = Wanted(request, versions, frozenset(known[each] for each in components) or frozenset(COMPONENTS), level)
    return Wanted(
        request,
        versions,
        plain.components,
        level,
        plain.since if since is None else moment(since, now),
        None if until is None else moment(until, now),
    )


def _names(registry: Registry, model: str) -> dict[str, tuple[str, str]]:
    """Return the versions that a reference stands for, by the names that model servers know them by."""
    return {f"{server_name(each.id)}_{each.version}": (each.name, each.version) for each in _records(registry, model)}


def _records(registry: Registry, model: str) -> list[VersionRecord]:
    reference = parse_reference(model)
    pointer = registry.pointer(reference.name)
    if pointer is None or pointer.kind == "id" or (reference.selector is not None and is_label(reference.selector)):
        return [registry.resolve(reference)]  # raises for an unknown name, naming what exists
    if reference.selector is not None:
        return [registry.record(pointer.model, reference.selector)]
    return [registry.record(pointer.model, version) for version in registry.versions(pointer.model)]
