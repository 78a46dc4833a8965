"""KServe: `InferenceService`, and the `ServingRuntime` that it names, out of YAML as people keep it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from marway.archives.entries import shown
from marway.errors import InvalidInput, InvalidReference, clip
from marway_archiver.adopt.found import Endpoint, Found, FoundModel, FoundWorkflow, Setting
from marway_archiver.adopt.names import model_name, version_name
from marway_archiver.adopt.sources.kube.objects import (
    RUNTIMES,
    KubeObject,
    group_objects,
    not_looked_at,
    of_group,
    text,
)
from marway_archiver.adopt.sources.kube.services import (
    Server,
    Service,
    endpoint_of,
    files_of,
    is_service,
    server_of,
    taken_apart,
)
from marway_archiver.adopt.sources.kube.settings import pods_words, serving_of, settings_of
from marway_archiver.adopt.sources.kube.storage import Storage, volumes_of
from marway_archiver.adopt.sources.layouts import IMPLEMENTATIONS, model_settings, numbered, of_path
from marway_archiver.adopt.sources.mlserver import model_at
from marway_archiver.adopt.sources.options import Options
from marway_archiver.adopt.sources.torchserve import read_torchserve
from marway_archiver.adopt.sources.triton import is_triton, read_triton
from marway_archiver.bundles.open_inference import SETTINGS

__all__ = ["CANARY", "is_kserve", "read_kserve"]

CANARY: Final = "CANARY"
"""Label of the revision that gets a part of the requests."""


def is_kserve(source: Path) -> bool:
    """Return whether a path holds an `InferenceService` that is not ModelMesh's."""
    return of_group(source) and any(map(is_service, group_objects(source)))


def read_kserve(source: Path, options: Options) -> Found:
    """Read the services of a file or a directory of YAML files, and the files that they name.

    Raises:
        InvalidInput: A file cannot be read, or holds no service.
    """
    objects, root = group_objects(source), source if source.is_dir() else source.parent
    services = [each for each in objects if is_service(each)]
    if not services:
        raise InvalidInput(f"{source} holds no InferenceService of KServe")
    runtimes = {each.name: each for each in objects if each.kind in RUNTIMES}
    storage = Storage(options, root, volumes_of(objects, root))
    reading = _Reading(options, objects, runtimes, storage, not_looked_at(objects, is_service))
    seen: dict[str, int] = {}
    models: list[FoundModel] = []
    for thing in services:
        revision = seen[thing.name] = seen.get(thing.name, 0) + 1
        for model in reading.models(thing, revision):
            models += reading.distinguished(model, revision, models)
    for runtime in runtimes.values():
        reading.settings.extend(settings_of(runtime, {"name": "a runtime of KServe's"}, named=True))
    return Found(
        "kserve", str(source), tuple(models), tuple(reading.settings), tuple(reading.notes), tuple(reading.workflows)
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """One source as it is read: what is in it, and what it has come to so far."""

    options: Options
    objects: Sequence[KubeObject]
    runtimes: Mapping[str, KubeObject]
    storage: Storage
    notes: list[str]
    settings: list[Setting] = field(default_factory=list)
    workflows: list[FoundWorkflow] = field(default_factory=list)

    def models(self, thing: KubeObject, revision: int) -> Iterator[FoundModel]:
        """Yield the models of one service."""
        endpoint = Endpoint("v1", thing.name)
        try:
            service = taken_apart(thing, revision)
            endpoint = endpoint_of(service, thing.name)
            server = server_of(service, self.runtimes)
            path = files_of(service, self.storage, self.objects)
            found = list(self._found(service, server, path, endpoint))
        except (InvalidInput, InvalidReference) as exc:
            settings = tuple(settings_of(thing, {"name": "not taken over", "backend": "none"}))
            yield FoundModel(thing.name, "?", endpoint, settings=settings, problem=exc.message)
            return
        for model in found:
            yield _with_service(model, service, self.options)

    def _found(self, service: Service, server: Server, path: Path, endpoint: Endpoint) -> Iterator[FoundModel]:
        name, version, label = model_name(service.thing.name), self.options.version, self.options.label
        if server == "torchserve":
            yield from self._torchserve(path, endpoint)
        elif server == "triton":
            if not (path.is_dir() and is_triton(path)):
                raise InvalidInput(f"{path} is no model repository of Triton, with a directory for each model")
            repository = read_triton(path, self.options)
            self.notes.extend(repository.notes)
            for model in repository.models:
                yield replace(model, endpoint=replace(model.endpoint, url=endpoint.url, host=endpoint.host))
        elif server == "tensorflow":
            yield _tensorflow(name, version, path, endpoint, self.options)
        elif server == "openvino":
            yield FoundModel(name, version, endpoint, "open-inference", directory=_directory(path), labels=(label,))
        else:
            yield _mlserver(service, server, name, version, path, endpoint, self.options)

    def _torchserve(self, path: Path, endpoint: Endpoint) -> Iterator[FoundModel]:
        if path.is_file():
            raise InvalidInput(f"{path} is a file: KServe's TorchServe reads a directory with config/ and model-store/")
        found = read_torchserve(path, replace(self.options, model_store=_store_of(path)))
        self.notes.extend(found.notes)
        self.settings.extend(found.settings)
        self.workflows.extend(found.workflows)
        for model in found.models:
            yield replace(model, endpoint=replace(endpoint, model=model.endpoint.model, version=model.endpoint.version))

    def distinguished(self, model: FoundModel, revision: int, before: Sequence[FoundModel]) -> Iterator[FoundModel]:
        """Yield a model once, and under a version of its own where another service has another one of its name."""
        if model.problem is not None:
            yield model
            return
        others = [each for each in before if each.problem is None and each.reference == model.reference]
        if not others:
            yield model
        elif any((each.archive, each.directory) == (model.archive, model.directory) for each in others):
            self.notes.append(f"{model.reference} is what two services load: it is one version")
        elif revision > 1:
            own = version_name(f"{model.version}-r{revision}")
            warning = f"its version is {model.version}, which the revision before has too: it becomes {own}"
            yield replace(model, version=own, warnings=(*model.warnings, warning))
        else:
            yield replace(model, problem=f"{model.reference} is another service's too, from another place: rename one")


def _store_of(path: Path) -> Path | None:
    return path / "model-store" if (path / "model-store").is_dir() else None


def _directory(path: Path) -> Path:
    if not path.is_dir():
        raise InvalidInput(f"{path} is a file, and a directory is wanted")
    return path


def _tensorflow(name: str, version: str, path: Path, endpoint: Endpoint, options: Options) -> FoundModel:
    versions = numbered(_directory(path))
    leave_out = tuple(each.name for each in versions[:-1])
    warnings = (
        (f"TensorFlow Serving serves the highest version alone: {', '.join(leave_out)} are not taken",)
        if leave_out
        else ()
    )
    return FoundModel(
        name, versions[-1].name if versions else version, endpoint, "tensorflow-serving", directory=path,
        leave_out=leave_out, labels=(options.label,), warnings=warnings,
    )  # fmt: skip


def _mlserver(
    service: Service, server: Server, name: str, version: str, path: Path, endpoint: Endpoint, options: Options
) -> FoundModel:
    if path.is_dir() and (path / SETTINGS).is_file():
        model = model_at(path, version, theirs=service.thing.name)
        return replace(model, endpoint=endpoint, labels=(options.label,))
    implementation = text(service.thing.labels.get("modelClass")) or IMPLEMENTATIONS.get(service.format)
    if implementation is None:
        raise InvalidInput(f"MLServer has no runtime for {shown(service.format)} that KServe would choose")
    warnings = (
        ("it was served by KServe's own server, and MLServer serves it here: its answers are to be compared",)
        if server == "python"
        else ()
    )
    directory, leave_out = of_path(path)
    return FoundModel(
        name, version, endpoint, "open-inference", directory=directory, leave_out=leave_out,
        add_files={SETTINGS: model_settings(name, implementation, path)}, labels=(options.label,), warnings=warnings,
    )  # fmt: skip


def _with_service(model: FoundModel, service: Service, options: Options) -> FoundModel:
    """Return a model with what its service says: settings, serving settings, the canary's label."""
    canary = service.canary
    labels = model.labels
    words = {
        "name": f"the model {model.name}",
        "backend": model.backend,
        "pods": pods_words(service.predictor),
        "canary": "nothing: all requests went to it",
    }
    if canary is not None:
        labels = tuple(CANARY if each == options.label else each for each in labels)
        words["canary"] = (
            f"the label {CANARY} points at it; `marway rollout start {model.name} {model.version} --steps {canary}%` "
            f"gives it its part of {options.label}, which is at the revision before"
        )
    serving = model.serving.model_copy(update=_given(serving_of(service.predictor)))
    missing = [each for each in ("transformer", "explainer") if each in service.thing.spec]
    warnings = [*model.warnings]
    warnings += (f"the service has a {each}, which is not taken over: answers differ without it" for each in missing)
    if canary is not None and service.revision == 1:
        warnings.append(
            f"{100 - canary} of 100 requests went to the revision before, which this YAML does not say: put it before"
        )
    kept: list[Setting] = list(settings_of(service.thing, words))
    return replace(
        model, labels=labels, serving=serving, settings=(*model.settings, *kept), warnings=tuple(map(_short, warnings))
    )


def _given(serving: Any) -> dict[str, Any]:
    return {name: getattr(serving, name) for name in serving.model_fields_set}


def _short(warning: str) -> str:
    return clip(warning, 500)
