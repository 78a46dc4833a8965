"""Reads a `.war`, as torch-workflow-archiver makes it: it may be anybody's, and nothing of it is run or unpacked.

What it says is taken as TorchServe 0.12 takes it: what `models` does not name and the graph does is a function of the
workflow's handler file, and settings that a model does not have are those of `models`, or TorchServe's own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from marway.archives.entries import Entry, open_regular, read_all, shown
from marway.errors import InvalidArchive, clip
from marway_archiver.contents.yaml_document import MAX_CONFIG_BYTES, Wrong, composed
from marway_archiver.format.zipscan import Scan, read_file, scan

__all__ = ["DEFAULTS", "Workflow", "WorkflowModel", "opened_workflow"]

MANIFEST: Final = "WAR-INF/MANIFEST.json"
_MANIFEST_BYTES_MAX: Final = 1024 * 1024
DEFAULTS: Final[Mapping[str, int]] = {
    "min-workers": 1,
    "max-workers": 1,
    "batch-size": 1,
    "max-batch-delay": 50,
    "retry-attempts": 1,
    "timeout-ms": 10_000,
}
"""Settings of a workflow's models, and what TorchServe takes where the workflow does not say."""


@dataclass(frozen=True, slots=True)
class WorkflowModel:
    """A model that a workflow names.

    Attributes:
        url: Its archive: a file of the model store, or an address.
        said: The settings that hold for it, whether it says them or the workflow does; those of `DEFAULTS` left out.
        ignored: Names of settings that TorchServe knows none of.
    """

    url: str
    declared: Mapping[str, int]
    ignored: tuple[str, ...] = ()

    def setting(self, name: str) -> int:
        """Return what holds."""
        return self.declared.get(name, DEFAULTS[name])


@dataclass(frozen=True, slots=True)
class Workflow:
    """What a `.war` says.

    Attributes:
        name: What it calls itself.
        handler: The file of its functions; None where it has none.
        models: Of its nodes, those that are models; the others are functions of ``handler``.
        edges: By node, the nodes that are given its answer, as the workflow has them.
        settings: Those that hold for functions.
        unused: Models that it names and no node is.
        files: Its files by name, but its manifest and its specification.
    """

    name: str
    handler: str | None
    models: Mapping[str, WorkflowModel]
    edges: Mapping[str, tuple[str, ...]]
    settings: Mapping[str, int]
    unused: tuple[str, ...] = ()
    files: Mapping[str, Entry] = field(default_factory=dict)

    @property
    def nodes(self) -> tuple[str, ...]:
        """All nodes, each once, in the order in which they are first named."""
        return tuple(dict.fromkeys(each for name, to in self.edges.items() for each in (name, *to)))

    @property
    def functions(self) -> tuple[str, ...]:
        """The nodes that are functions."""
        return tuple(each for each in self.nodes if each not in self.models)

    def before(self, node: str) -> tuple[str, ...]:
        """Return the nodes whose answers one is given."""
        return tuple(name for name, to in self.edges.items() if node in to)


@contextmanager
def opened_workflow(path: Path) -> Iterator[Workflow]:
    """Check a `.war` and give what it says, its files while it is open.

    Raises:
        InvalidArchive: It is hostile, damaged, or TorchServe would refuse it; the message names the file.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            found = Scan()
            scan(file, found)
            read = partial(read_file, file)
            files = (Entry(each.name, each.size, each.name, partial(read, each)) for each in found.files)
            yield _workflow({each.name: each for each in files})
    except InvalidArchive as exc:
        raise InvalidArchive(exc.message if str(path) in exc.message else f"{path}: {exc.message}") from exc


def _workflow(entries: dict[str, Entry]) -> Workflow:
    if MANIFEST not in entries:
        raise InvalidArchive(f"has no {MANIFEST}: it is no workflow archive, as torch-workflow-archiver makes them")
    declared = _manifest(read_all(entries.pop(MANIFEST), _MANIFEST_BYTES_MAX))
    name, spec, handler = (declared.get(each) for each in ("workflowName", "specFile", "handler"))
    if not isinstance(name, str) or not name:
        raise InvalidArchive(f"{MANIFEST}: workflow.workflowName is missing")
    if not isinstance(spec, str) or spec not in entries:
        raise InvalidArchive(f"{MANIFEST}: workflow.specFile {shown(str(spec))} is not in the archive")
    if handler is not None and (not isinstance(handler, str) or handler not in entries):
        raise InvalidArchive(f"{MANIFEST}: workflow.handler {shown(str(handler))} is not in the archive")
    document = _specification(read_all(entries.pop(spec), MAX_CONFIG_BYTES), spec)
    settings, models = _models(document.get("models"), spec)
    edges = _edges(document.get("dag"), spec)
    nodes = {each for one, to in edges.items() for each in (one, *to)}
    functions = sorted(nodes - models.keys())
    if functions and handler is None:
        raise InvalidArchive(
            f"{spec}: dag: {functions[0]} is none of the models, so a function, and the archive has no handler file"
        )
    used = {key: value for key, value in models.items() if key in nodes}
    return Workflow(name, handler, used, edges, settings, tuple(sorted(models.keys() - nodes)), entries)


def _manifest(data: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{MANIFEST} is not JSON: {clip(str(exc), 200)}") from exc
    declared = document.get("workflow") if isinstance(document, dict) else None
    if not isinstance(declared, dict):
        raise InvalidArchive(f"{MANIFEST} has no object 'workflow'")
    return declared


def _specification(data: bytes, name: str) -> Mapping[str, Any]:
    try:
        composed(data)
        document = yaml.safe_load(data)
    except Wrong as exc:
        raise InvalidArchive(f"{name}:{exc.line + 1}: {exc}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:
        raise InvalidArchive(f"{name} is not YAML: {clip(str(exc), 200)}") from exc
    if not isinstance(document, dict):
        raise InvalidArchive(f"{name} holds no mapping of models and dag")
    return document


def _models(declared: Any, spec: str) -> tuple[Mapping[str, int], Mapping[str, WorkflowModel]]:
    """Return the settings that hold where a model says none, and the models."""
    if not isinstance(declared, dict):
        raise InvalidArchive(f"{spec}: models is missing, or no mapping")
    settings = {name: _number(declared[name], f"models.{name}", spec) for name in DEFAULTS if name in declared}
    models: dict[str, WorkflowModel] = {}
    for key, each in declared.items():
        if key in DEFAULTS:
            continue
        if not isinstance(each, dict) or not isinstance(each.get("url"), str):
            raise InvalidArchive(f"{spec}: models.{shown(str(key))} is neither a setting nor a model with its url")
        own = {name: _number(each[name], f"models.{key}.{name}", spec) for name in DEFAULTS if name in each}
        ignored = tuple(str(name) for name in each if name != "url" and name not in DEFAULTS)
        models[str(key)] = WorkflowModel(each["url"], {**settings, **own}, ignored)
    return settings, models


def _number(value: Any, where: str, spec: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise InvalidArchive(f"{spec}: {where} is {shown(str(value))}, and has to be a whole number from 0 on")
    return value


def _edges(declared: Any, spec: str) -> Mapping[str, tuple[str, ...]]:
    if not isinstance(declared, dict) or not declared:
        raise InvalidArchive(f"{spec}: dag is missing, or no mapping from a node to those that are given its answer")
    edges: dict[str, tuple[str, ...]] = {}
    for key, to in declared.items():
        if not isinstance(key, str) or not isinstance(to, list) or not all(isinstance(each, str) for each in to):
            raise InvalidArchive(f"{spec}: dag.{shown(str(key))} is no list of nodes")
        edges[key] = tuple(dict.fromkeys(to))
    circle = _circle(edges)
    if circle is not None:
        raise InvalidArchive(f"{spec}: dag goes in a circle: {' → '.join(circle)}")
    return edges


def _circle(edges: Mapping[str, tuple[str, ...]]) -> list[str] | None:
    """Return a way that comes back to its beginning, or None."""
    done: set[str] = set()
    for start in edges:
        way: list[str] = []
        left: list[Iterator[str]] = [iter((start,))]
        while left:
            node = next(left[-1], None)
            if node is None:
                left.pop()
                if way:
                    done.add(way.pop())
            elif node in way:
                return [*way[way.index(node) :], node]
            elif node not in done:
                way.append(node)
                left.append(iter(edges.get(node, ())))
    return None
