"""What TorchServe would misread in an archive's contents; one set of rules for packing and for checking."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic.alias_generators import to_camel

from marway.archives.entries import Entry, read_all, shown
from marway.errors import InvalidArchive
from marway_archiver.contents.manifest import BUILTIN_HANDLERS, Handler, Manifest, ManifestModel, parse_handler
from marway_archiver.contents.model_config import ModelConfig, parse_model_config
from marway_archiver.contents.python_source import (
    MAX_SOURCE_BYTES,
    ModuleFacts,
    check_entry_point,
    check_one_class,
    parse_module,
)
from marway_archiver.contents.yaml_document import MAX_CONFIG_BYTES

__all__ = ["Findings", "check_contents", "imports_of"]

_WORKER_PACKAGES = frozenset({"PIL", "numpy", "psutil", "torch", "ts", "yaml"})
"""What TorchServe's worker imports besides the standard library."""
_NEEDS_WEIGHTS = BUILTIN_HANDLERS - {"dali_image_classifier", "trt_llm_handler", "vllm_handler"}


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found in contents that are accepted: the model configuration, and what may surprise."""

    config: ModelConfig | None
    warnings: tuple[str, ...]


def check_contents(manifest: Manifest, entries: Mapping[str, Entry], *, packing: bool) -> Findings:
    """Refuse contents that TorchServe could not load, or would load as something else than was meant.

    An archive that is being made (``packing``) has its model file held to torch-model-archiver's rule (one class) under
    any handler, and its sources are looked at for imports left behind.

    Raises:
        InvalidArchive: One sentence on the first thing that is wrong.
    """
    model = manifest.model
    warnings: list[str] = []
    for field in ("serialized_file", "model_file", "requirements_file", "config_file"):
        name = getattr(model, field)
        if name is not None and ("/" in name or name not in entries):
            raise InvalidArchive(f"the manifest's {to_camel(field)} {shown(name)} is not at the archive's root")
    if model.serialized_file is not None and not entries[model.serialized_file].size:
        warnings.append(f"{entries[model.serialized_file].origin} is empty: a handler that reads weights finds none")
    files, function = parse_handler(model.handler, manifest.runtime)
    files = tuple(file.rpartition("/")[2] for file in files)  # TorchServe imports it by its basename
    if manifest.runtime != "LSP":
        own = _check_handler(model, Handler(files, function), entries, warnings)
        if model.model_file is not None and (packing or not own):
            check_one_class(_module(entries[model.model_file], "--model-file" if packing else "modelFile"))
        _check_shadows(entries, warnings)
    elif files and entries.keys().isdisjoint(files):
        raise InvalidArchive(f"the handler's library {files[0]} is not in the archive")
    config = None
    if model.config_file is not None:
        entry = entries[model.config_file]
        config = parse_model_config(read_all(entry, MAX_CONFIG_BYTES), entry.origin)
        warnings += config.warnings
    if packing:
        warnings += _left_behind(entries)
    return Findings(config, tuple(warnings))


def _check_handler(model: ManifestModel, handler: Handler, entries: Mapping[str, Entry], warnings: list[str]) -> bool:
    """Check a Python handler; return whether it is the archive's own."""
    files = handler.files
    entry = entries.get(files[0] if files else f"{model.handler}.py")
    if entry is None:
        if files:
            known = ", ".join(sorted(BUILTIN_HANDLERS))
            raise InvalidArchive(f"handler file {shown(files[0])} is missing (TorchServe's own are {known})")
        if model.handler in _NEEDS_WEIGHTS and model.serialized_file is None and model.model_file is None:
            raise InvalidArchive(f"handler {model.handler} has nothing to load: give --serialized-file or --model-file")
        return False
    facts = _module(entry, "handler")
    check_entry_point(facts, handler.function)
    if facts.star:
        warnings.append(f"{entry.origin}: 'import *' hides which entry point TorchServe will find")
    warnings += [f"{entry.origin}:{line}: a relative import fails when this is called" for line in facts.relative_later]
    return True


def _module(entry: Entry, what: str) -> ModuleFacts:
    """Parse a file that TorchServe imports by its basename."""
    stem = entry.name.removesuffix(".py")
    if stem == entry.name:
        raise InvalidArchive(f"{what} {entry.origin} is not a Python file (.py)")
    if not stem.isidentifier() or keyword.iskeyword(stem) or stem.startswith("__"):
        raise InvalidArchive(
            f"{what} {entry.origin} cannot be imported: {stem!r} is not a module's name; rename the file"
        )
    if stem in _WORKER_PACKAGES or stem in sys.stdlib_module_names:
        raise InvalidArchive(
            f"{what} {entry.origin} would take the place of the module {stem!r} in TorchServe's worker: rename the file"
        )
    return parse_module(read_all(entry, MAX_SOURCE_BYTES), entry.origin)


def _root_modules(entries: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
    """Yield what can be imported from the archive's root, which is first on the worker's path."""
    for name, entry in entries.items():
        head, slash, tail = name.partition("/")
        if not slash and name.endswith(".py"):
            yield name.removesuffix(".py"), entry
        elif tail == "__init__.py":
            yield head, entry


def _check_shadows(entries: Mapping[str, Entry], warnings: list[str]) -> None:
    for module, entry in _root_modules(entries):
        if module in _WORKER_PACKAGES:
            raise InvalidArchive(
                f"{entry.origin} would take the place of the package {module!r} in TorchServe's worker: rename it"
            )
        if module in sys.stdlib_module_names:
            warnings.append(
                f"{entry.origin} takes the place of the standard library's {module!r} in TorchServe's worker"
            )


def _left_behind(entries: Mapping[str, Entry]) -> Iterator[str]:
    """Yield a warning for each import of something that lies beside a source and is not in the archive."""
    packed = {name.partition("/")[0] for name in entries}
    for name, entry in sorted(entries.items()):
        if entry.path is None or "/" in name or not name.endswith(".py") or entry.size > MAX_SOURCE_BYTES:
            continue
        try:
            facts = parse_module(read_all(entry, MAX_SOURCE_BYTES), entry.origin)
        except InvalidArchive as exc:
            yield exc.message
            continue
        for module, line in facts.imports.items():
            here = entry.path.parent / module
            beside = here.with_name(f"{module}.py").is_file() or (here.is_dir() and any(here.glob("*.py")))
            if beside and packed.isdisjoint({module, f"{module}.py"}):
                yield (
                    f"{entry.origin}:{line}: imports {module!r}, which lies beside it and is not in the archive: "
                    "add it with --extra-files"
                )


def imports_of(entry: Entry) -> frozenset[str]:
    """Return the top-level packages that a Python file imports; none for what is no Python file, or not accepted."""
    if not entry.name.endswith(".py") or entry.size > MAX_SOURCE_BYTES:
        return frozenset()
    try:
        return frozenset(parse_module(read_all(entry, MAX_SOURCE_BYTES), entry.origin).imports)
    except InvalidArchive:
        return frozenset()
