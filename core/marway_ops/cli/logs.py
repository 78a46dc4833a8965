"""`marway logs MODEL`: what a model's handler printed and raised."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from marway.errors import InvalidInput
from marway.records import VersionRecord
from marway.refs import is_label, parse_reference, server_name
from marway.registry import Registry, open_registry
from marway.text import printable, printable_json
from marway.wire import model_log
from marway.wire.request import correlation_id
from marway.wire.runtime import LOGS
from marway_ops.shell.options import DEFAULT_HOME, RegistryOption, registry_url

__all__ = ["logs"]

_FOLLOW_INTERVAL_S = 0.25


def logs(
    model: Annotated[str, typer.Argument(help="MODEL (all its versions), MODEL/VERSION, MODEL/LABEL or an id.")],
    home: Annotated[Path, typer.Option(help="Home of the `marway up` that serves it.")] = DEFAULT_HOME,
    request: Annotated[
        str | None, typer.Option(metavar="ID", help="Show only what was written while this request was answered.")
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Show at most this many, the newest.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as new lines come, until Ctrl-C.")] = False,
    registry: RegistryOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Show what a model's handler printed, logged and raised, tracebacks too."""
    if request is not None and correlation_id(request) is None:
        raise InvalidInput(f"{request!r} cannot be a request's id: a problem document has it as `request_id`")
    pods = sorted((home / "pods").glob("*"))
    if not pods:
        raise InvalidInput(f"{home} has no pods: give the --home of a `marway up`")
    local = home / "registry"
    url = registry or (local.absolute().as_uri() if local.is_dir() else registry_url(None))
    records = _records(open_registry(url), model)
    versions = {f"{server_name(record.id)}_{record.version}": record for record in records}
    counts: dict[Path, int] = {}
    found = _new_lines(pods, versions, request, counts)
    for line, pod in found[-lines:]:
        _show(line, pod, versions[line.worker], as_json=as_json)
    if not found:
        typer.echo(
            "nothing was printed yet" if request is None else f"nothing was printed for request {request}", err=True
        )
    while follow:
        time.sleep(_FOLLOW_INTERVAL_S)  # the log is a file: there is nothing to wait on but its growth
        for line, pod in _new_lines(pods, versions, request, counts):
            _show(line, pod, versions[line.worker], as_json=as_json)


def _records(registry: Registry, model: str) -> list[VersionRecord]:
    reference = parse_reference(model)
    pointer = registry.pointer(reference.name)
    if pointer is None or pointer.kind == "id" or (reference.selector is not None and is_label(reference.selector)):
        return [registry.resolve(reference)]  # raises for an unknown name, naming what exists
    if reference.selector is not None:
        return [registry.record(pointer.model, reference.selector)]
    return [registry.record(pointer.model, version) for version in registry.versions(pointer.model)]


def _new_lines(
    pods: list[Path], versions: dict[str, VersionRecord], request: str | None, counts: dict[Path, int]
) -> list[tuple[model_log.LogLine, str]]:
    """Return lines beyond those counted in ``counts``, which are then, with their pods' names, oldest first."""
    found: list[tuple[model_log.LogLine, str]] = []
    for pod in pods:
        read = model_log.read(pod / LOGS, versions)
        new, counts[pod] = read[counts.get(pod, 0) :], len(read)
        found.extend((line, pod.name) for line in new if request is None or line.is_about(request))
    found.sort(key=lambda pair: pair[0].at)
    return found


def _show(line: model_log.LogLine, pod: str, record: VersionRecord, *, as_json: bool) -> None:
    if as_json:
        document = {**line.record(), "model": record.name, "version": record.version, "pod": pod}
        typer.echo(printable_json(json.dumps(document, ensure_ascii=False)))
        return
    ids = f" {','.join(line.request_ids)}" if line.request_ids else ""
    at = f"{line.at:%H:%M:%S}.{line.at.microsecond // 1000:03d}"
    head = f"{at} {line.level:7} {pod} {record.name} {record.version}{ids}"
    for text in _texts(line):
        typer.echo(f"{head} | {printable(text)}")


def _texts(line: model_log.LogLine) -> Iterator[str]:
    yield line.text
    if line.reason is not None:
        yield line.reason
    if line.traceback is not None:
        yield from line.traceback.splitlines()
