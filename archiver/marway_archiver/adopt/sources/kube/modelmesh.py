"""ModelMesh: `Predictor`, or an `InferenceService` in its mode, with the Secret of storages that they name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from marway.archives.entries import shown
from marway.errors import InvalidArchive, InvalidInput, InvalidReference
from marway_archiver.adopt.found import Endpoint, Found, FoundModel
from marway_archiver.adopt.names import model_name, version_name
from marway_archiver.adopt.sources.files import listed, parsed_json
from marway_archiver.adopt.sources.kube.objects import (
    GROUPS,
    RUNTIMES,
    KubeObject,
    group_objects,
    mapping,
    not_looked_at,
    of_group,
    text,
)
from marway_archiver.adopt.sources.kube.predictors import DeclaredModel, declared_model, schema_of
from marway_archiver.adopt.sources.kube.services import MESH_MODE
from marway_archiver.adopt.sources.kube.settings import serving_of, settings_of
from marway_archiver.adopt.sources.kube.storage import Storage, volumes_of
from marway_archiver.adopt.sources.layouts import (
    IMPLEMENTATIONS,
    TRITON_FILES,
    model_settings,
    numbered,
    of_path,
    staged,
    triton_config,
)
from marway_archiver.adopt.sources.mlserver import model_at
from marway_archiver.adopt.sources.options import Options
from marway_archiver.archives import inspect_archive
from marway_archiver.bundles.open_inference import CONFIG, SETTINGS

__all__ = ["is_modelmesh", "read_modelmesh"]


def is_modelmesh(source: Path) -> bool:
    """Return whether a path holds a `Predictor`, or an `InferenceService` that is ModelMesh's."""
    return of_group(source) and any(map(_is_predictor, group_objects(source)))


def _is_predictor(thing: KubeObject) -> bool:
    if thing.group not in GROUPS:
        return False
    mesh = text(thing.annotations.get(MESH_MODE)) == "ModelMesh"
    return thing.kind == "Predictor" or (thing.kind == "InferenceService" and mesh)


def read_modelmesh(source: Path, options: Options) -> Found:
    """Read the predictors of a file or a directory of YAML files, and the files that they name.

    Raises:
        InvalidInput: A file cannot be read, or holds no predictor.
    """
    objects, root = group_objects(source), source if source.is_dir() else source.parent
    predictors = [each for each in objects if _is_predictor(each)]
    if not predictors:
        raise InvalidInput(f"{source} holds no Predictor of ModelMesh")
    storage = Storage(options, root, volumes_of(objects, root))
    notes = not_looked_at(objects, _is_predictor)
    settings = tuple(
        each
        for runtime in objects
        if runtime.kind in RUNTIMES
        for each in settings_of(runtime, {"name": "a runtime of ModelMesh's"}, named=True)
    )
    models = [_found(each, storage, objects, options) for each in predictors]
    return Found("modelmesh", str(source), tuple(models), settings, tuple(notes))


def _found(thing: KubeObject, storage: Storage, objects: Sequence[KubeObject], options: Options) -> FoundModel:
    endpoint = Endpoint("v2", thing.name, None, _url(thing))
    try:
        declared = declared_model(thing, objects)
        path = storage.find(declared.uri, declared.keys)
        schema = schema_of(declared, storage)
        found = _model(thing, declared, path, schema, endpoint, options)
    except (InvalidArchive, InvalidInput, InvalidReference) as exc:
        settings = tuple(settings_of(thing, {"name": "not taken over", "backend": "none"}))
        return FoundModel(thing.name, "?", endpoint, settings=settings, problem=exc.message)
    words = {"name": f"the model {found.name}", "backend": found.backend}
    warnings = found.warnings
    if found.name != thing.name:
        warnings = (
            *warnings,
            f"it was called {thing.name!r}, which cannot be a name here: clients ask for {found.name}",
        )
    return replace(
        found,
        labels=(options.label,),
        serving=found.serving.model_copy(update=_given(serving_of(declared.predictor))),
        settings=(*found.settings, *settings_of(thing, words)),
        warnings=warnings,
    )


def _given(serving: Any) -> dict[str, Any]:
    return {name: getattr(serving, name) for name in serving.model_fields_set}


def _url(thing: KubeObject) -> str | None:
    status = mapping(thing.document.get("status"))
    rest = mapping(mapping(status.get("components")).get("predictor")).get("restUrl")
    return text(status.get("httpEndpoint")) or text(rest) or None


def _model(
    thing: KubeObject,
    declared: DeclaredModel,
    path: Path,
    schema: Mapping[str, Any] | None,
    endpoint: Endpoint,
    options: Options,
) -> FoundModel:
    name = model_name(thing.name)
    runtime = declared.runtime.lower()
    if declared.format == "pytorch-mar" or "torchserve" in runtime or path.suffix == ".mar":
        return _archive(name, path, endpoint)
    if declared.format in IMPLEMENTATIONS or "mlserver" in runtime:
        return _mlserver(name, options.version, declared, path, schema, endpoint, thing)
    if declared.format in (*TRITON_FILES, "keras") or "triton" in runtime:
        return _triton(name, declared, path, schema, endpoint, options)
    if declared.format == "openvino_ir" or "ovms" in runtime:
        return _openvino(name, path, endpoint, options)
    raise InvalidInput(
        f"{thing.where}: no backend of Marway's serves the type {shown(declared.format)}: run its server beside a "
        "sidecar of the backend open-inference or http, and publish a bundle for it"
    )


def _archive(name: str, path: Path, endpoint: Endpoint) -> FoundModel:
    """Return the model of a `.mar`, which ModelMesh registers under the predictor's name."""
    if path.is_dir():
        found = listed(path, lambda each: each.suffix == ".mar")
        if len(found) != 1:
            raise InvalidInput(f"{path} holds {len(found)} .mar files: ModelMesh wants the path of one")
        path = found[0]
    info = inspect_archive(path)
    if info.problems:
        raise InvalidArchive(f"{path}: {info.problems[0]}")
    return FoundModel(name, version_name(info.model[1]), endpoint, archive=path, warnings=info.warnings)


def _mlserver(
    name: str,
    version: str,
    declared: DeclaredModel,
    path: Path,
    schema: Mapping[str, Any] | None,
    endpoint: Endpoint,
    thing: KubeObject,
) -> FoundModel:
    if path.is_dir() and (path / SETTINGS).is_file():
        found = model_at(path, version, theirs=thing.name)
        return replace(found, endpoint=endpoint)
    implementation = IMPLEMENTATIONS.get(declared.format)
    if implementation is None:
        raise InvalidInput(f"MLServer has no runtime for {shown(declared.format)} that ModelMesh would choose")
    settings = parsed_json(model_settings(name, implementation, path).decode(), SETTINGS)
    settings |= {side: schema[side] for side in ("inputs", "outputs") if schema and side in schema}
    directory, leave_out = of_path(path)
    return FoundModel(
        name, version, endpoint, "open-inference", directory=directory, leave_out=leave_out,
        add_files={SETTINGS: f"{json.dumps(settings, indent=2)}\n".encode()},
    )  # fmt: skip


def _triton(
    name: str,
    declared: DeclaredModel,
    path: Path,
    schema: Mapping[str, Any] | None,
    endpoint: Endpoint,
    options: Options,
) -> FoundModel:
    """Return the model as ModelMesh's adapter lays it out for Triton: its own layout, else a version with one file."""
    if path.is_dir() and (path / CONFIG).is_file():
        versions = [each.name for each in numbered(path)]
        if not versions:
            raise InvalidInput(f"{path} has {CONFIG} and no version directory, such as 1/")
        warning = (
            () if len(versions) == 1 else (f"ModelMesh loads one version: {', '.join(versions[:-1])} are not taken",)
        )
        leave_out = tuple(versions[:-1])
        return FoundModel(
            name, versions[-1], endpoint, "open-inference", directory=path, leave_out=leave_out, warnings=warning
        )
    if declared.format not in TRITON_FILES:
        raise InvalidInput(
            f"{path}: a model of the type {shown(declared.format)} is converted by ModelMesh when it is loaded: "
            "convert it yourself (a SavedModel or ONNX), and adopt that"
        )
    version, folder = options.version, "1"
    if path.is_dir():
        versions_there = numbered(path)
        if versions_there:
            version = folder = versions_there[-1].name
            path = versions_there[-1]
        files = [each for each in listed(path) if each.name != "_schema.json"]
        path = files[0] if len(files) == 1 else path
    file, backend = TRITON_FILES[declared.format]
    if path.is_dir():
        file = {"tensorflow": "model.savedmodel", "onnx": "model.onnx"}.get(declared.format, "")
        if not file:
            raise InvalidInput(f"{path} is a directory, and a {declared.format} model of Triton's is one file")
    directory = staged(options.scratch, name, {f"{folder}/{file}": path})
    return FoundModel(
        name,
        version,
        endpoint,
        "open-inference",
        directory=directory,
        add_files={CONFIG: triton_config(backend, schema)},
    )


def _openvino(name: str, path: Path, endpoint: Endpoint, options: Options) -> FoundModel:
    if path.is_dir() and numbered(path):
        versions = [each.name for each in numbered(path)]
        return FoundModel(
            name, versions[-1], endpoint, "open-inference", directory=path, leave_out=tuple(versions[:-1])
        )
    files = listed(path) if path.is_dir() else [path]
    directory = staged(options.scratch, name, {f"1/{each.name}": each for each in files})
    return FoundModel(name, options.version, endpoint, "open-inference", directory=directory)
