"""TorchServe: its model store, `config.properties`, and the snapshots that it writes of what it serves."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from marway.archives.entries import MANIFEST_NAME, shown
from marway.errors import InvalidArchive, InvalidInput, InvalidReference, clip
from marway_archiver.adopt.found import Endpoint, Found, FoundModel, FoundWorkflow, Setting
from marway_archiver.adopt.names import model_name, version_name
from marway_archiver.adopt.sources.files import listed, parsed_json, read_bytes, within
from marway_archiver.adopt.sources.options import Options
from marway_archiver.adopt.sources.properties import parse_properties
from marway_archiver.adopt.sources.torchserve_settings import model_settings, server_settings, serving_of
from marway_archiver.archives import ArchiveInfo, inspect_archive

__all__ = ["is_torchserve", "read_torchserve"]

_SUFFIXES: Final = (".mar", ".tar.gz", ".model")
"""What TorchServe loads with `load_models=all`, beside directories."""
_STORES: Final = ("model-store", "model_store", "models")
_CONFIGS: Final = ("config.properties", "config/config.properties")
_SNAPSHOTS: Final = ("logs/config", "log/config")
_SNAPSHOT: Final = re.compile(r"(\d{17})-\w+\.cfg")
_VARIABLE: Final = re.compile(r"\$\$([^$]+[^$])\$\$")
_MAX_MODELS: Final = 1000


@dataclass(frozen=True, slots=True)
class _Wanted:
    """One archive that the server loads: which file, what as, and what is said of it."""

    file: str
    name: str | None = None
    version: str | None = None
    default: bool | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)


def is_torchserve(source: Path) -> bool:
    """Return whether a path is TorchServe's: a configuration, a snapshot, a model store, or the directory of both."""
    if source.is_file():
        return source.suffix in (".properties", ".cfg")
    return (
        any((source / each).is_file() for each in _CONFIGS)
        or _last_snapshot(source) is not None
        or any(each.suffix == ".mar" for each in _archives(source))
        or any((source / each).is_dir() and _archives(source / each) for each in _STORES)
    )


def read_torchserve(source: Path, options: Options) -> Found:
    """Read what a TorchServe serves, or would serve when it starts.

    Raises:
        InvalidInput: The configuration or the model store cannot be read; one sentence says what to do.
    """
    notes: list[str] = []
    config = _config(source, notes)
    declared = {} if config is None else parse_properties(read_bytes(config), str(config))
    _check_variables(declared, config)
    store = _store(source, config, declared, options)
    notes.append(f"the archives are those of {store}")
    wanted = list(_wanted(declared, store, notes))
    if len(wanted) > _MAX_MODELS:
        raise InvalidInput(f"{source} has more than {_MAX_MODELS} models: take it over in parts")
    models = _models(wanted, store, declared, options)
    if not models:
        raise InvalidInput(f"{source} serves no model: {store} holds no archive ({', '.join(_SUFFIXES)})")
    notes += _left(store, wanted)
    workflows = _workflows(store, source, declared)
    return Found("torchserve", str(source), tuple(models), server_settings(declared), tuple(notes), workflows)


def _config(source: Path, notes: list[str]) -> Path | None:
    """Return the configuration to go by: the one given, else as TorchServe chooses: the last snapshot before a file."""
    if source.is_file():
        notes.append(f"the configuration is {source}")
        return source
    there = [source / each for each in _CONFIGS if (source / each).is_file()]
    snapshot = _last_snapshot(source)
    if snapshot is not None:
        notes.append(f"the configuration is {snapshot}, the last snapshot that the server wrote")
        if there:
            notes.append(f"{there[0]} is not looked at: the snapshot is later; give that file to go by it")
        return snapshot
    if there:
        notes.append(f"the configuration is {there[0]}")
        return there[0]
    notes.append(f"{source} has no config.properties and no snapshot: TorchServe's own defaults hold")
    return None


def _last_snapshot(source: Path) -> Path | None:
    for each in _SNAPSHOTS:
        directory = source / each
        if directory.is_dir():
            found = listed(directory, lambda path: _SNAPSHOT.fullmatch(path.name) is not None)
            if found:
                return found[-1]
    return None


def _check_variables(declared: Mapping[str, str], config: Path | None) -> None:
    for key, value in declared.items():
        found = _VARIABLE.search(value)
        if found is not None:
            raise InvalidInput(
                f"{config}: {clip(key, 60)} stands for the environment variable {shown(found[1])} of the old server: "
                "write its value into a copy of the file, and give that"
            )


def _store(source: Path, config: Path | None, declared: Mapping[str, str], options: Options) -> Path:
    if options.model_store is not None:
        if not options.model_store.is_dir():
            raise InvalidInput(f"--model-store {options.model_store} is no directory")
        return options.model_store
    root = source if source.is_dir() else source.parent
    named = declared.get("model_store")
    bases = [root] if config is None else [root, config.parent, config.parent.parent]
    tried = [] if named is None else [each / named for each in dict.fromkeys(bases)]
    if source.is_dir() and _archives(source):
        tried.append(source)
    tried += [base / each for base in dict.fromkeys(bases) for each in _STORES]
    for each in tried:
        if each.is_dir():
            return each
    place = "it names none" if named is None else f"{named} is not there"
    raise InvalidInput(f"where is the model store of {source}? {place}: give its directory with --model-store DIR")


def _archives(directory: Path) -> list[Path]:
    return listed(directory, lambda path: path.name.endswith(_SUFFIXES) or (path / MANIFEST_NAME).is_file())


def _wanted(declared: Mapping[str, str], store: Path, notes: list[str]) -> Iterator[_Wanted]:
    """Yield what the server loads: what its snapshot says, else `load_models`, else all that there is."""
    snapshot = declared.get("model_snapshot")
    if snapshot is not None:
        yield from _of_snapshot(parsed_json(snapshot, "model_snapshot"))
        return
    configured = parsed_json(declared["models"], "models") if "models" in declared else {}
    loaded = declared.get("load_models", "").strip()
    if loaded.lower() in ("", "standalone", "all", "none"):
        if loaded.lower() != "all":
            notes.append("no model is loaded at start: all that lie in the store are taken")
        for path in _archives(store):
            yield _Wanted(path.name, declared=configured)
        return
    for item in filter(None, map(str.strip, loaded.split(","))):
        name, equals, file = item.partition("=")
        yield _Wanted(file.strip(), name.strip(), declared=configured) if equals else _Wanted(item, declared=configured)


def _of_snapshot(snapshot: Any) -> Iterator[_Wanted]:
    models = snapshot.get("models") if isinstance(snapshot, dict) else None
    if not isinstance(models, dict):
        raise InvalidInput("model_snapshot has no 'models', an object of models by their names: is it a snapshot?")
    for name, versions in sorted(models.items()):
        if not isinstance(versions, dict):
            raise InvalidInput(f"model_snapshot: {shown(name)} is no object of versions")
        for version, each in versions.items():
            if not isinstance(each, dict) or not isinstance(each.get("marName"), str):
                raise InvalidInput(f"model_snapshot: {shown(name)} {shown(version)} has no marName")
            default = each.get("defaultVersion") is True
            yield _Wanted(each["marName"], name, version, default, {name: {version: each}})


def _models(wanted: list[_Wanted], store: Path, declared: Mapping[str, str], options: Options) -> list[FoundModel]:
    found = [_model(each, store, declared) for each in wanted]
    first: dict[str, int] = {}
    for place, model in enumerate(found):
        if model.problem is None and wanted[place].default is not False:
            first.setdefault(model.name, place)  # TorchServe's default is the one that was registered first
    several = {each.name for each in found if sum(other.name == each.name for other in found) > 1}
    models: list[FoundModel] = []
    for place, each in enumerate(found):
        default = first.get(each.name) == place
        labels = (options.label,) if default else ()
        settings = each.settings
        if each.name in several and wanted[place].default is None:
            becomes = f"{options.label} points at the first by name; the server's own default is not written down"
            settings = (*settings, Setting("defaultVersion", "(not said)", "changed", becomes))
        endpoint = replace(each.endpoint, version=None if default else each.endpoint.version)
        models.append(replace(each, labels=labels, settings=settings, endpoint=endpoint))
    return sorted(models, key=lambda each: (each.name, each.version))


def _model(wanted: _Wanted, store: Path, declared: Mapping[str, str]) -> FoundModel:
    guessed = wanted.name or Path(wanted.file).name.partition(".")[0]
    url = _address(declared.get("inference_address", "http://127.0.0.1:8080"))
    try:
        path = _file(wanted.file, store)
        info = inspect_archive(path)
        if info.problems:
            raise InvalidArchive(f"{path}: {info.problems[0]}")
        theirs = wanted.name or info.model[0], info.model[1]
        name, version = model_name(theirs[0]), version_name(theirs[1])
    except (InvalidArchive, InvalidInput, InvalidReference) as exc:
        endpoint = Endpoint("torchserve", guessed, wanted.version, url)
        return FoundModel(guessed, wanted.version or "?", endpoint, problem=exc.message)
    values = _declared_of(wanted.declared, theirs)
    settings = [Setting("marName", wanted.file, "kept", f"the archive of {name} {version}")]
    settings += model_settings(values, declared, info.config, label_hint=wanted.default)
    warnings = list(_renamed(theirs, (name, version), info))
    if wanted.version not in (None, theirs[1]):
        warnings.append(f"the snapshot calls it version {wanted.version}, the archive {theirs[1]}: the archive's holds")
    return FoundModel(
        name,
        version,
        Endpoint("torchserve", theirs[0], theirs[1], url),
        archive=path,
        serving=serving_of(values, declared, info.config),
        settings=tuple(settings),
        warnings=tuple(warnings),
    )


def _declared_of(declared: Mapping[str, Any], theirs: tuple[str, str]) -> dict[str, Any]:
    versions = declared.get(theirs[0], {})
    values = versions.get(theirs[1], {}) if isinstance(versions, dict) else {}
    return values if isinstance(values, dict) else {}


def _file(name: str, store: Path) -> Path:
    if urlsplit(name).scheme in ("http", "https", "s3"):
        raise InvalidInput(f"{clip(name, 200)} is an address: fetch the file into {store}, and name it there")
    return within(store, name, "the archive")


def _renamed(theirs: tuple[str, str], ours: tuple[str, str], info: ArchiveInfo) -> Iterator[str]:
    if theirs[0] != ours[0]:
        yield f"it was called {shown(theirs[0])}, which cannot be a name here: clients have to ask for {ours[0]}"
    if theirs[1] != ours[1]:
        yield f"its version was {shown(theirs[1])}, which cannot be one here: it is {ours[1]}"
    yield from info.warnings


def _address(declared: str) -> str:
    """Return where a client of this machine reaches the server."""
    return re.sub(r"//(0\.0\.0\.0|\[::\])(?=[:/]|$)", "//127.0.0.1", declared.strip().rstrip("/"))


def _left(store: Path, wanted: list[_Wanted]) -> Iterator[str]:
    """Yield what lies in the store and is not taken."""
    taken = {Path(each.file).parts[0] for each in wanted if each.file}
    for path in listed(store):
        if path.name in taken:
            continue
        if path in _archives(store):
            yield f"{path} is in the store and the server does not load it: `marway publish` takes it as well"


def _workflows(store: Path, source: Path, declared: Mapping[str, str]) -> tuple[FoundWorkflow, ...]:
    """Return the workflows of the workflow store, which is the model store where nothing else is said."""
    named = declared.get("workflow_store")
    root = source if source.is_dir() else source.parent
    place = store if named is None or not (root / named).is_dir() else root / named
    found = listed(place, lambda path: path.suffix == ".war" and path.is_file())
    return tuple(FoundWorkflow(each, store) for each in found)
