"""`marway logs MODEL`: what a model's handler printed and raised."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from marway import model_log
from marway.cli.options import DEFAULT_HOME, JsonOption, RegistryOption, registry_url
from marway.cli.output import print_json
from marway.errors import InvalidInput
from marway.records import VersionRecord
from marway.refs import is_label, parse_reference, server_name
from marway.registry import Registry, open_registry
from marway.wire.runtime import LOGS

__all__ = ["register"]

_FOLLOW_INTERVAL_S = 0.25


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("logs")(logs)


def logs(
    model: Annotated[str, typer.Argument(help="MODEL (all its versions), MODEL/VERSION, MODEL/LABEL or an id.")],
    home: Annotated[Path, typer.Option(help="Home of the `marway up` that serves it.")] = DEFAULT_HOME,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Show at most this many, the newest.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new lines come, until Ctrl-C.")] = False,
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a model's handler printed, logged and raised, tracebacks too."""
    pods = sorted((home / "pods").glob("*"))
    if not pods:
        raise InvalidInput(f"{home} has no pods: give the --home of a `marway up`")
    local = home / "registry"
    url = registry or (local.absolute().as_uri() if local.is_dir() else registry_url(None))
    records = _records(open_registry(url), model)
    versions = {f"{server_name(record.id)}_{record.version}": record for record in records}
    shown = _show(pods, versions, lines=lines, after={}, as_json=as_json)
    while follow:
        time.sleep(_FOLLOW_INTERVAL_S)  # the log is a file: there is nothing to wait on but its growth
        shown = _show(pods, versions, lines=None, after=shown, as_json=False)


def _records(registry: Registry, model: str) -> list[VersionRecord]:
    reference = parse_reference(model)
    pointer = registry.pointer(reference.name)
    if pointer is None or pointer.kind == "id" or (reference.selector is not None and is_label(reference.selector)):
        return [registry.resolve(reference)]  # raises for an unknown name, naming what exists
    if reference.selector is not None:
        return [registry.record(pointer.model, reference.selector)]
    return [registry.record(pointer.model, version) for version in registry.versions(pointer.model)]


def _show(
    pods: list[Path], versions: dict[str, VersionRecord], *, lines: int | None, after: dict[Path, int], as_json: bool
) -> dict[Path, int]:
    """Print lines that come after those counted in ``after``, and return the new counts."""
    counts = {}
    found: list[tuple[model_log.LogLine, str]] = []
    for pod in pods:
        read = model_log.read(pod / LOGS, versions)
        counts[pod] = len(read)
        found.extend((line, pod.name) for line in read[after.get(pod, 0) :])
    found.sort(key=lambda pair: pair[0].at)
    if lines is not None:
        found = found[-lines:]
    if as_json:
        document = [
            {
                "at": line.at.isoformat(),
                "pod": pod_name,
                "model": versions[line.worker].name,
                "version": versions[line.worker].version,
                "text": line.text,
            }
            for line, pod_name in found
        ]
        print_json(document)
        return counts
    for line, pod_name in found:
        record = versions[line.worker]
        typer.echo(f"{line.at:%H:%M:%S.%f} {pod_name} {record.name} {record.version} | {line.text}")
    if not found and lines is not None:
        typer.echo("nothing was printed yet", err=True)
    return counts
