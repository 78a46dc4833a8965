"""Packs a model: inputs checked, then written and placed in one step."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from marway.answers.golden import GoldenDocument, encode_examples
from marway.archives.entries import MANIFEST_NAME, Entry, check_name, check_no_collisions, from_bytes, shown
from marway.archives.zipformat import file_digest, write_archive
from marway.errors import InvalidArchive
from marway.records import ArchiveKind
from marway.refs import check_model_name, check_version
from marway_archiver.atomic_output import atomic_directory, atomic_file, check_target
from marway_archiver.contents.manifest import (
    BUILTIN_HANDLERS,
    RUNTIMES,
    Manifest,
    build_manifest,
    encode_manifest,
    parse_handler,
)
from marway_archiver.contents.model_config import ModelConfig
from marway_archiver.contents.rules import check_contents, imports_of
from marway_archiver.contents.sources import Sources
from marway_archiver.format.other_formats import write_directory, write_tgz
from marway_archiver.progress import Meter, Progress
from marway_archiver.proving.examples import encode_all
from marway_archiver.proving.proof import PackProof, answer_examples
from marway_archiver.proving.runs import Predict, ProofPlan

__all__ = [
    "ARCHIVE_FORMATS",
    "Collected",
    "PackedArchive",
    "Progress",
    "StrPath",
    "added",
    "collect",
    "pack",
    "place_archive",
]

ARCHIVE_FORMATS: Mapping[str, str] = {"default": ".mar", "zip-store": ".mar", "tgz": ".tar.gz", "no-archive": ""}
"""What `--archive-format` takes, and how the output's name ends. `default` and `zip-store` are the same here."""

SHARED = ("marway_handler_base", "marway_handler_rows")
"""Modules that Marway's own handlers share: they lie beside them, and are packed with each that imports them."""

StrPath = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class PackedArchive:
    """A finished archive.

    Attributes:
        path: Where it is.
        sha256: Digest of its bytes, hex; for `no-archive`, of the lines ``SHA256  NAME`` of its files.
        size_bytes: Its size; for `no-archive`, that of all files.
        manifest: What it says of itself.
        warnings: One sentence each on what is allowed and may surprise.
        config: Its model configuration, if it has one.
        golden: The answers to its golden examples, where there are any.
        proof: That the handler was loaded and gave these answers, where it was run.
    """

    path: Path
    sha256: str
    size_bytes: int
    manifest: Manifest
    warnings: tuple[str, ...] = ()
    config: ModelConfig | None = None
    golden: GoldenDocument | None = None
    proof: PackProof | None = None

    @property
    def model(self) -> tuple[str, str]:
        """The model's name and version."""
        return self.manifest.model.model_name, self.manifest.model.model_version

    @property
    def kind(self) -> ArchiveKind:
        return "mar"

    @property
    def handler(self) -> str:
        return self.manifest.model.handler

    @property
    def streaming(self) -> bool:
        """Whether answers come in pieces, as the configuration says or the proof showed."""
        continuous = self.config is not None and self.config.calling.way == "continuous"
        return continuous or (self.proof is not None and self.proof.streaming)


def pack(
    *,
    model_name: str,
    version: str,
    handler: str,
    model_file: StrPath | None = None,
    serialized_file: StrPath | None = None,
    extra_files: str | Sequence[StrPath] | None = None,
    requirements_file: StrPath | None = None,
    config_file: StrPath | None = None,
    runtime: str = "python",
    export_path: StrPath = ".",
    archive_format: str = "default",
    force: bool = False,
    add_files: Mapping[str, bytes] | None = None,
    examples: Sequence[Any] = (),
    plan: ProofPlan | None = None,
    predict: Predict | None = None,
    golden_file: StrPath | None = None,
    progress: Progress | None = None,
) -> PackedArchive:
    """Pack a model as `EXPORT_PATH/MODEL_NAME.mar`; the same inputs give the same bytes anywhere.

    The arguments are torch-model-archiver's and mean what they mean there. Everything is checked before
    anything is written; the file appears under its name complete or not at all.

    Args:
        model_name: See `marway.refs`.
        version: See `marway.refs`.
        handler: One of TorchServe's own, or `FILE`, `FILE.py`, `FILE:FUNCTION`, `FILE.py:FUNCTION`.
        model_file: Python file with exactly one class, the model.
        serialized_file: Weights.
        extra_files: Comma-separated or a sequence: files, wildcards, directories whose contents go to the root.
        requirements_file: pip requirements of this model.
        config_file: Model configuration (YAML).
        runtime: `python`, `python3` or `LSP`.
        export_path: An existing directory.
        archive_format: `default`, `zip-store`, `tgz` (`MODEL_NAME.tar.gz`) or `no-archive` (a directory).
        force: Replace an output that exists.
        add_files: Further files by their name in the archive; they may lie in MAR-INF.
        examples: Golden examples: `marway_archiver.Example`, or their inputs. They go into the archive, and the
            handler answers them in a process of its own before anything is written.
        plan: How they are run; the default otherwise.
        predict: Answers them where TorchServe is not installed, from inputs as a handler sees them.
        golden_file: Where to write the golden document as well.
        progress: Called as bytes are done.

    Raises:
        InvalidReference: The name or the version cannot be one.
        InvalidArchive: Anything else is wrong; one sentence says what. Nothing was left behind.
        LoadFailed: The handler does not load, or takes too long for a golden example.
    """
    if archive_format not in ARCHIVE_FORMATS:
        raise InvalidArchive(
            f"--archive-format {shown(archive_format)}: it must be one of {', '.join(ARCHIVE_FORMATS)}"
        )
    final = Path(export_path) / f"{model_name}{ARCHIVE_FORMATS[archive_format]}"
    given, inputs = encode_all(examples)
    collected = collect(
        model_name=model_name,
        version=version,
        handler=handler,
        model_file=model_file,
        serialized_file=serialized_file,
        extra_files=extra_files,
        requirements_file=requirements_file,
        config_file=config_file,
        runtime=runtime,
        add_files={**(add_files or {}), **encode_examples(inputs)},
        final=final,
    )
    manifest = collected.manifest
    check_target(final, force=force, directory=archive_format == "no-archive")
    if golden_file is not None and inputs:
        check_target(Path(golden_file), force=force, directory=False)
    proved = answer_examples(manifest, collected.entries, given, inputs, plan or ProofPlan(), predict)
    warnings = (*collected.warnings, *proved.warnings)
    files = collected.entries.values()
    packed = place_archive(
        final, manifest, files, warnings, archive_format=archive_format, force=force, progress=progress
    )
    golden, proof, _ = proved.of_archive(packed.sha256)
    if golden_file is not None and golden is not None:
        with atomic_file(Path(golden_file), force=force) as file:
            file.write(golden.encode())
    return replace(packed, config=collected.config, golden=golden, proof=proof)


class Collected(NamedTuple):
    """The checked contents of an archive.

    Attributes:
        manifest: What the archive says of itself.
        entries: Its files but the manifest, by name.
        config: Its model configuration, if it has one.
        warnings: One sentence each on what is allowed and may surprise.
    """

    manifest: Manifest
    entries: Mapping[str, Entry]
    config: ModelConfig | None
    warnings: tuple[str, ...]


def collect(
    *,
    model_name: str,
    version: str,
    handler: str,
    model_file: StrPath | None = None,
    serialized_file: StrPath | None = None,
    extra_files: str | Sequence[StrPath] | None = None,
    requirements_file: StrPath | None = None,
    config_file: StrPath | None = None,
    runtime: str = "python",
    add_files: Mapping[str, bytes] | None = None,
    final: Path,
) -> Collected:
    """Return what an archive at ``final`` would hold, checked; arguments and errors as for `pack`."""
    check_model_name(model_name)
    check_version(version)
    if runtime not in RUNTIMES:
        raise InvalidArchive(f"--runtime {shown(runtime)}: it must be one of {', '.join(RUNTIMES)}")
    sources = Sources(final)
    _add_handler(sources, handler, runtime)
    names: dict[str, str] = {}
    for argument, path in (
        ("model_file", model_file),
        ("serialized_file", serialized_file),
        ("requirements_file", requirements_file),
        ("config_file", config_file),
    ):
        if path is not None:
            names[argument] = sources.add_file(f"--{argument.replace('_', '-')}", path)
    sources.add_extra(extra_files or ())
    for name, data in (add_files or {}).items():
        sources.add(added(name, data), reserved=True)
    check_no_collisions(sources.entries)
    manifest = build_manifest(model_name=model_name, version=version, handler=handler, runtime=runtime, **names)
    found = check_contents(manifest, sources.entries, packing=True)
    return Collected(manifest, sources.entries, found.config, (*sources.warnings, *found.warnings))


def place_archive(
    final: Path,
    manifest: Manifest,
    files: Iterable[Entry],
    warnings: tuple[str, ...],
    *,
    archive_format: str = "default",
    force: bool,
    progress: Progress | None,
) -> PackedArchive:
    """Write checked ``files`` and the manifest to ``final``."""
    entries = [from_bytes(MANIFEST_NAME, encode_manifest(manifest)), *files]
    total = sum(entry.size for entry in entries)
    if archive_format == "no-archive":
        meter = Meter(total, 1, progress)
        with atomic_directory(final, force=force) as directory:
            sha256, size = write_directory(directory, entries, meter.tick)
    else:
        meter = Meter(total, 2, progress)
        with atomic_file(final, force=force) as file:
            if archive_format == "tgz":
                write_tgz(file, entries, manifest.model.model_name, meter.tick)
            else:
                write_archive(file, entries, meter.tick)
            sha256, size = file_digest(file, meter.tick)
    meter.end()
    return PackedArchive(final, sha256, size, manifest, warnings)


def _add_handler(sources: Sources, handler: str, runtime: str) -> None:
    files = parse_handler(handler, runtime).files
    if not files:
        return
    there = [file for file in files if os.path.lexists(file)]
    if not there and runtime != "LSP":
        known = ", ".join(sorted(BUILTIN_HANDLERS))
        raise InvalidArchive(f"--handler: {files[0]} does not exist, and is none of TorchServe's own ({known})")
    file = Path((there or files)[0])
    sources.add_file("--handler", file)
    imported = set(imports_of(sources.entries[file.name]))
    for shared in reversed(SHARED):  # the later ones import the earlier
        beside = file.with_name(f"{shared}.py")
        if shared in imported and beside.is_file():
            sources.add_file("--handler", beside)
            imported |= set(imports_of(sources.entries[beside.name]))


def added(name: str, data: bytes) -> Entry:
    """Return a file that is added by its name in the archive.

    Raises:
        InvalidArchive: It cannot be a name, or is the manifest's.
    """
    if check_name(name).casefold() == MANIFEST_NAME.casefold():
        raise InvalidArchive(f"{shown(name)} is the manifest's place")
    return from_bytes(name, data)
