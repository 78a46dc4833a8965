"""MLServer's tree: `settings.json` of the server, and a `model-settings.json` beside the files of each model."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from marway.archives.entries import shown
from marway.errors import InvalidInput, InvalidReference, clip
from marway_archiver.adopt.found import Endpoint, Found, FoundModel, Outcome, Setting
from marway_archiver.adopt.names import model_name, version_name
from marway_archiver.adopt.sources.files import leaves, parsed_json, read_text
from marway_archiver.adopt.sources.options import Options
from marway_archiver.bundles.open_inference import SETTINGS

__all__ = ["is_mlserver", "model_at", "read_mlserver"]

_SERVER_SETTINGS: Final = "settings.json"
_MAX_DIRECTORIES: Final = 20_000
_MAX_DEPTH: Final = 16
_IN_BUNDLE: Final = "it stands in the bundle's model-settings.json, which MLServer reads as before"
_OF_POD: Final = "a setting of the MLServer that runs in a pod: its own settings.json"
_GATEWAY: Final = "clients ask the gateway: its settings "
_SERVER: Final[Mapping[str, tuple[Outcome, str]]] = {
    "host": ("elsewhere", f"{_GATEWAY}host and port (8000)"),
    "http_port": ("elsewhere", f"{_GATEWAY}host and port (8000)"),
    "grpc_port": ("elsewhere", f"{_GATEWAY}grpc_host and grpc_port (8002)"),
    "grpc_max_message_length": ("elsewhere", "the gateway's setting max_body_bytes (64 MiB)"),
    "model_repository_root": ("kept", "its models are versions in the registry"),
    "load_models_at_startup": ("changed", "versions are loaded when they are released or asked for"),
    "metrics_endpoint": ("elsewhere", "gateways and sidecars give Prometheus' metrics on /metrics"),
    "metrics_port": ("elsewhere", "gateways and sidecars give Prometheus' metrics on /metrics"),
    "kafka_enabled": ("none", "requests come over HTTP and gRPC alone"),
    "kafka_servers": ("none", "requests come over HTTP and gRPC alone"),
    "kafka_topic_input": ("none", "requests come over HTTP and gRPC alone"),
    "kafka_topic_output": ("none", "requests come over HTTP and gRPC alone"),
    "cache_enabled": ("elsewhere", "the serving setting cache, for each version"),
    "cache_size": ("elsewhere", "the gateway's setting cache_bytes"),
    "cors_settings": ("elsewhere", "the gateway's setting cors_origins"),
    "debug": ("none", "of MLServer alone"),
    "root_path": ("none", "the gateway's routes begin at /"),
    "tracing_server": ("elsewhere", "the trace of a request goes through: docs/monitoring.md"),
}
_MODEL: Final[Mapping[str, tuple[Outcome, str]]] = {
    "name": ("changed", "a version has a name of its own in the server; callers know the model's"),
    "parameters.version": ("kept", "the version's"),
    "parallel_workers": ("elsewhere", _OF_POD),
}


def is_mlserver(source: Path) -> bool:
    """Return whether a path is a directory with a `model-settings.json` in it or below."""
    return source.is_dir() and next(_settings_files(source), None) is not None


def read_mlserver(source: Path, options: Options) -> Found:
    """Read the models of a tree, as MLServer finds them when it starts.

    Raises:
        InvalidInput: There is none, or its files cannot be read.
    """
    notes: list[str] = []
    server = source / _SERVER_SETTINGS
    declared: Any = {}
    if server.is_file():
        declared = parsed_json(read_text(server), str(server))
        if not isinstance(declared, dict):
            raise InvalidInput(f"{server} is no object of settings")
    else:
        notes.append(f"{source} has no {_SERVER_SETTINGS}: MLServer's own defaults hold")
    root = _root(source, declared, notes)
    files = list(_settings_files(root))
    models = [model_at(each.parent, options.version, files) for each in files]
    if not models:
        raise InvalidInput(f"{root} holds no {SETTINGS}")
    settings = tuple(_server_settings(declared))
    return Found("mlserver", str(source), tuple(labelled(models, options.label)), settings, tuple(notes))


def _root(source: Path, declared: Mapping[str, Any], notes: list[str]) -> Path:
    """Return where the server looks for models, if that is within the source."""
    named = declared.get("model_repository_root")
    if not isinstance(named, str):
        return source
    root = source / named
    if root.is_dir() and root.resolve().is_relative_to(source.resolve()):
        return root
    notes.append(f"model_repository_root is {clip(named, 100)}, which is not in {source}: give that directory as well")
    return source


def _settings_files(source: Path) -> Iterator[Path]:
    """Yield each `model-settings.json`, by path; symbolic links to directories are not followed."""
    for seen, (root, directories, files) in enumerate(os.walk(source)):
        depth = len(Path(root).parts) - len(source.parts)
        if seen > _MAX_DIRECTORIES or depth > _MAX_DEPTH:
            raise InvalidInput(f"{source} has too many directories or too deep ones: give the directory of the models")
        directories[:] = sorted(each for each in directories if not each.startswith(".") and each != "__pycache__")
        if SETTINGS in files:
            yield Path(root) / SETTINGS


def model_at(
    directory: Path, unsaid: str, others: list[Path] | None = None, *, theirs: str | None = None
) -> FoundModel:
    """Return the model of one `model-settings.json`.

    Args:
        directory: Where that lies.
        unsaid: Its version where it says none.
        others: All such files of the source: those below ``directory`` are other models.
        theirs: What its clients call it; what it says itself where this is not given.
    """
    name = theirs or directory.resolve().name
    endpoint = Endpoint("v2", name)
    try:
        file = directory / SETTINGS
        declared = parsed_json(read_text(file), str(file))
        if not isinstance(declared, dict):
            raise InvalidInput(f"{file} is no object of settings")
        name = theirs or str(declared.get("name") or name)
        parameters = declared.get("parameters")
        parameters = parameters if isinstance(parameters, dict) else {}
        version = parameters.get("version")
        endpoint = Endpoint("v2", name, None if version is None else str(version))
        ours = model_name(name), unsaid if version is None else version_name(str(version))
        added, warnings = _with_files_inside(declared, parameters, directory)
    except (InvalidInput, InvalidReference) as exc:
        return FoundModel(name, "?", endpoint, "open-inference", directory=directory, problem=exc.message)
    if name != ours[0]:
        warnings = (*warnings, f"it was called {name!r}, which cannot be a name here: clients ask for {ours[0]}")
    nested = tuple(
        {each.parent.relative_to(directory).parts[0] for each in others or () if directory in each.parent.parents}
    )
    return FoundModel(
        *ours,
        endpoint,
        "open-inference",
        directory=directory,
        leave_out=(*sorted(nested), _SERVER_SETTINGS),
        add_files=added,
        settings=tuple(_model_settings(declared)),
        warnings=warnings,
    )


def _with_files_inside(
    declared: Mapping[str, Any], parameters: Mapping[str, Any], directory: Path
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """Return the settings to put in the place of those that name an absolute path, where its file is beside them."""
    uri = parameters.get("uri")
    if not isinstance(uri, str) or "://" in uri:
        return {}, ()
    path = PurePosixPath(uri)
    if ".." in path.parts:
        raise InvalidInput(f"{directory / SETTINGS} reads the model from {shown(uri)}, out of its directory")
    if not path.is_absolute():
        return {}, ()
    inside = Path(uri)
    if inside.is_relative_to(directory.resolve()):
        near = inside.relative_to(directory.resolve()).as_posix()
    elif (directory / path.name).exists():
        near = path.name
    elif path.name in ("models", directory.resolve().name):
        near = ""
    else:
        raise InvalidInput(
            f"{directory / SETTINGS} reads the model from {shown(uri)}: copy it beside that file, and name it there"
        )
    changed = {**declared, "parameters": {**parameters, "uri": f"./{near}"}}
    warning = f"the settings read the model from {clip(uri, 100)}: in the bundle from ./{near}"
    return {SETTINGS: f"{json.dumps(changed, indent=2)}\n".encode()}, (warning,)


def labelled(models: list[FoundModel], label: str) -> Iterator[FoundModel]:
    """Yield the models by name and version, the label at the one of each name that MLServer answers with by default."""
    by_name: dict[str, list[FoundModel]] = {}
    for each in models:
        by_name.setdefault(each.name, []).append(each)
    for name in sorted(by_name):
        usable = sorted((each for each in by_name[name] if each.problem is None), key=functools.cmp_to_key(_newer))
        taken = {each.version for each in usable if each.endpoint.version is not None}
        for each in usable:
            model = each
            if each.endpoint.version is None and each.version in taken:
                free = next(number for number in range(2, len(taken) + 3) if str(number) not in taken)
                declared = f"it has no version, and {each.version} is another's: it becomes {free}"
                model = replace(each, version=str(free), warnings=(*each.warnings, declared))
            if each is usable[-1]:
                model = replace(model, labels=(label,), endpoint=replace(model.endpoint, version=None))
            yield model
        yield from (each for each in by_name[name] if each.problem is not None)


def _newer(one: FoundModel, other: FoundModel) -> int:
    """Compare as MLServer does: without a version is newest, then by number, else by text (`mlserver/registry.py`)."""
    first, second = one.endpoint.version, other.endpoint.version
    if first is None or second is None:
        return (first is None) - (second is None)
    try:
        return int(first) - int(second)
    except ValueError:
        return (first > second) - (first < second)


def _server_settings(declared: Mapping[str, Any]) -> Iterator[Setting]:
    for key, value in declared.items():
        outcome, becomes = _SERVER.get(key, ("elsewhere", _OF_POD))
        for path, shown_value in leaves(value, key):
            yield Setting(path, shown_value, outcome, becomes)


def _model_settings(declared: Mapping[str, Any]) -> Iterator[Setting]:
    for key, value in declared.items():
        for path, shown_value in leaves(value, key):
            yield Setting(path, shown_value, *_MODEL.get(path, ("kept", _IN_BUNDLE)))
