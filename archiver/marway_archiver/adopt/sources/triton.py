"""Triton's model repository: a directory for each model, in it a configuration and a directory for each version."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from marway.errors import InvalidArchive, InvalidInput, InvalidReference, clip
from marway_archiver.adopt.found import Endpoint, Found, FoundModel, Outcome, Setting
from marway_archiver.adopt.names import model_name
from marway_archiver.adopt.sources.files import listed, read_text
from marway_archiver.adopt.sources.layouts import numbered
from marway_archiver.adopt.sources.options import Options
from marway_archiver.bundles.open_inference import CONFIG
from marway_archiver.bundles.text_format import Message, parse_text_format

__all__ = ["is_triton", "model_versions", "read_triton"]

_MODEL_FILES: Final = (
    "model.graphdef", "model.onnx", "model.plan", "model.pt", "model.py", "model.savedmodel", "model.xml",
)  # fmt: skip
"""What Triton itself makes a configuration for, where a model has none."""
_IN_CONFIG: Final = "it stands in the bundle's config.pbtxt, which Triton reads as before"
_FIELDS: Final[Mapping[str, tuple[Outcome, str]]] = {
    "name": ("changed", "a version has a name of its own in the server; callers know the model's"),
    "version_policy": ("changed", "each version that it serves is a version here, loaded and unloaded by itself"),
    "max_batch_size": ("kept", "max_batch_rows of the version, and Triton's own batcher"),
    "model_warmup": ("kept", "Triton warms up as before; golden examples do so as well"),
    "sequence_batching": ("kept", "sequences: docs/sequences.md"),
}


def is_triton(source: Path) -> bool:
    """Return whether a path is a repository of Triton's, or one model of it."""
    return source.is_dir() and (_is_model(source) or any(map(_is_model, listed(source, Path.is_dir))))


def _is_model(directory: Path) -> bool:
    return (directory / CONFIG).is_file() or any(
        (version / file).exists() for version in numbered(directory) for file in _MODEL_FILES
    )


def read_triton(source: Path, options: Options) -> Found:
    """Read the models of a repository, each in the versions that its policy serves.

    Raises:
        InvalidInput: There is none, or a directory cannot be read.
    """
    notes: list[str] = []
    directories = [source] if _is_model(source) else listed(source, Path.is_dir)
    models: list[FoundModel] = []
    for directory in directories:
        if not _is_model(directory):
            notes.append(f"{directory} is not looked at: it has neither {CONFIG} nor a version with a model's file")
            continue
        models += model_versions(directory, directory.resolve().name, options.label, notes)
    if not models:
        raise InvalidInput(f"{source} holds no model of Triton: a directory with {CONFIG} and version directories")
    return Found("triton", str(source), tuple(models), (), tuple(notes))


def model_versions(directory: Path, theirs: str, label: str, notes: list[str]) -> Iterator[FoundModel]:
    """Yield one model in the versions that are served; what its clients call it is ``theirs``."""
    endpoint = Endpoint("v2", theirs)
    try:
        name = model_name(theirs)
        config = _config(directory)
    except (InvalidArchive, InvalidInput, InvalidReference) as exc:
        yield FoundModel(theirs, "?", endpoint, "open-inference", directory=directory, problem=exc.message)
        return
    there = [each.name for each in numbered(directory)]
    served, missing = _served(config, there)
    settings = tuple(_settings(config))
    for version in missing:
        problem = f"version_policy serves version {version}, and {directory} has no directory {version}"
        yield FoundModel(name, version, endpoint, "open-inference", directory=directory, problem=problem)
    if not there:
        problem = f"{directory} has no version directory, such as 1/, with the model's files"
        yield FoundModel(name, "?", endpoint, "open-inference", directory=directory, problem=problem)
    left = [each for each in there if each not in served]
    if left and there:
        notes.append(f"{directory}: versions {', '.join(left)} are not taken: version_policy does not serve them")
    warnings = (
        () if theirs == name else (f"it was called {theirs!r}, which cannot be a name here: clients ask for {name}",)
    )
    for version in served:
        default = version == served[-1]
        yield FoundModel(
            name,
            version,
            Endpoint("v2", theirs, None if default else version),
            "open-inference",
            directory=directory,
            leave_out=tuple(each for each in there if each != version),
            labels=(label,) if default else (),
            settings=settings,
            warnings=warnings,
            problem=_ensemble(directory) if "ensemble_scheduling" in config else None,
        )


def _config(directory: Path) -> Message:
    file = directory / CONFIG
    return parse_text_format(read_text(file), str(file)) if file.exists() else {}


def _ensemble(directory: Path) -> str:
    return (
        f"{directory} is an ensemble, whose steps name other models, and every version is a model of its own in the "
        "server: make it a graph (docs/graphs.md), a node for each step"
    )


def _served(config: Message, there: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the versions that the policy serves, in their order, and those that it names and that are not there."""
    policy = _message(config.get("version_policy", ()))
    if "all" in policy:
        return list(there), []
    if "specific" in policy:
        wanted = [str(each) for each in _message(policy["specific"]).get("versions", ())]
        return [each for each in there if each in wanted], [each for each in wanted if each not in there]
    number = _message(policy.get("latest", ())).get("num_versions", ("1",))[0]
    count = int(number) if isinstance(number, str) and number.isdigit() else 1
    return list(there[-max(1, count) :]), []


def _message(values: Sequence[Any]) -> Message:
    return values[0] if values and isinstance(values[0], dict) else {}


def _settings(config: Message) -> Iterator[Setting]:
    for field, values in config.items():
        outcome, becomes = _FIELDS.get(field, ("kept", _IN_CONFIG))
        yield Setting(field, clip(", ".join(map(_shown, values)), 100), outcome, becomes)


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return str(value)
    return "{ " + " ".join(f"{key}: {', '.join(map(_shown, each))}" for key, each in value.items()) + " }"
