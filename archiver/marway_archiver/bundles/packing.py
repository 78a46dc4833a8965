"""Packs a directory of a model server's as a bundle."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marway.answers.golden import DEFAULT_TOLERANCE, GoldenDocument, Tolerance, encode_examples
from marway.archives.entries import BUNDLE_MANIFEST_NAME, Entry, check_name, check_no_collisions, from_bytes
from marway.archives.zipformat import file_digest, write_archive
from marway.bundles import BUNDLE_SUFFIX, BundleManifest, check_backend_of_bundle
from marway.bundles.manifest import DEFAULT_ROOT, EMPTY_DIRECTORY, encode_manifest, parse_manifest
from marway.errors import InvalidArchive
from marway.records import ArchiveKind
from marway.refs import check_model_name, check_version
from marway_archiver.atomic_output import atomic_file, check_target
from marway_archiver.bundles.answers import given_answers
from marway_archiver.bundles.layout import Layout
from marway_archiver.bundles.rules import check_layout, saved_model_folder
from marway_archiver.contents.sources import Sources
from marway_archiver.packing import StrPath
from marway_archiver.progress import Meter, Progress
from marway_archiver.proving.examples import encode_all

__all__ = ["PackedBundle", "pack_bundle"]


@dataclass(frozen=True, slots=True)
class PackedBundle:
    """A finished bundle.

    Attributes:
        path: Where it is.
        sha256: Digest of its bytes, hex.
        size_bytes: Its size.
        manifest: What it says of itself.
        layout: What its files say of the model.
        warnings: One sentence each on what is allowed and may surprise.
        golden: The stated answers to its golden examples, where there are any.
    """

    path: Path
    sha256: str
    size_bytes: int
    manifest: BundleManifest
    layout: Layout = field(default_factory=Layout)
    warnings: tuple[str, ...] = ()
    golden: GoldenDocument | None = None

    @property
    def model(self) -> tuple[str, str]:
        """The model's name and version."""
        return self.manifest.name, self.manifest.version

    @property
    def kind(self) -> ArchiveKind:
        return "bundle"

    @property
    def handler(self) -> str:
        """None: what is called is the server's matter."""
        return ""

    @property
    def streaming(self) -> bool:
        """Whether answers come in pieces, as the server's configuration says."""
        return self.layout.streaming


def pack_bundle(
    *,
    model_name: str,
    version: str,
    backend: str,
    directory: StrPath | None = None,
    leave_out: Collection[str] = (),
    add_files: Mapping[str, bytes] | None = None,
    server_model: str | None = None,
    export_path: StrPath = ".",
    force: bool = False,
    examples: Sequence[Any] = (),
    tolerance: Tolerance = DEFAULT_TOLERANCE,
    golden_file: StrPath | None = None,
    progress: Progress | None = None,
) -> PackedBundle:
    """Pack a model server's directory as `EXPORT_PATH/MODEL_NAME.bundle`; the same inputs give the same bytes anywhere.

    Everything is checked before anything is written; the file appears under its name complete or not at all.

    Args:
        model_name: See `marway.refs`.
        version: See `marway.refs`.
        backend: The kind of model server that it is for: `open-inference`, `tensorflow-serving`, `http`,
            `grpc-predictor`, or one of another package.
        directory: One model as the server wants it. Hidden directories, `__pycache__` and `__MACOSX` stay away. None
            for a server that has the model already.
        leave_out: What lies right below ``directory`` and stays away, such as other versions' directories.
        add_files: Further files by their name below ``directory``, in place of those of the same name.
        server_model: What a server that Marway does not manage calls the model; as ``model_name`` otherwise.
        export_path: An existing directory.
        force: Replace an output that exists.
        examples: Golden examples: `marway_archiver.Example`, each with its output, which pods must give.
        tolerance: How far numbers of equal answers may lie apart.
        golden_file: Where to write the golden document as well.
        progress: Called as bytes are done.

    Raises:
        InvalidReference: The name, the version or the backend cannot be one.
        InvalidArchive: Anything else is wrong; one sentence says what. Nothing was left behind.
    """
    check_model_name(model_name)
    check_version(version)
    check_backend_of_bundle(backend)
    said = BundleManifest.model_construct(name=model_name, version=version, backend=backend, server_model=server_model)
    manifest = parse_manifest(encode_manifest(said))
    final = Path(export_path) / f"{model_name}{BUNDLE_SUFFIX}"
    sources = Sources(final)
    files = _files(sources, backend, directory, leave_out)
    files |= {name: from_bytes(check_name(name), data) for name, data in (add_files or {}).items()}
    layout = check_files(backend, files, f"--directory {directory}")
    given, inputs = encode_all(examples)
    golden = given_answers(manifest, given, inputs, "0" * 64, tolerance)
    entries = [
        from_bytes(BUNDLE_MANIFEST_NAME, encode_manifest(manifest)),
        *itertools.starmap(from_bytes, encode_examples(inputs, "bundle").items()),
        *(replace(each, name=f"{manifest.root}/{name}") for name, each in files.items()),
    ]
    check_no_collisions(each.name for each in entries)
    check_target(final, force=force, directory=False)
    if golden_file is not None and golden is not None:
        check_target(Path(golden_file), force=force, directory=False)
    meter = Meter(sum(each.size for each in entries), 2, progress)
    with atomic_file(final, force=force) as file:
        write_archive(file, entries, meter.tick)
        sha256, size = file_digest(file, meter.tick)
    meter.end()
    if golden is not None:
        golden = golden.model_copy(update={"archive_sha256": sha256})
        if golden_file is not None:
            with atomic_file(Path(golden_file), force=force) as file:
                file.write(golden.encode())
    warnings = (*sources.warnings, *layout.warnings)
    return PackedBundle(final, sha256, size, manifest, layout, warnings, golden)


def check_files(backend: str, files: Mapping[str, Entry], where: str) -> Layout:
    """Check the files of a bundle, by their names below its root; raises as `check_layout`, naming ``where``."""
    try:
        return check_layout(backend, files)
    except InvalidArchive as exc:
        raise InvalidArchive(f"{where}: {exc.message}") from exc


def _files(sources: Sources, backend: str, directory: StrPath | None, leave_out: Collection[str]) -> dict[str, Entry]:
    """Return the files of a directory by the names that they will have below a bundle's root."""
    if directory is None:
        return {}
    below = f"{DEFAULT_ROOT}/"
    try:
        sources.add_tree(Path(directory), below, EMPTY_DIRECTORY)
        found = {name.removeprefix(below): each for name, each in sources.entries.items()}
        found = {name: each for name, each in found.items() if name.partition("/")[0] not in leave_out}
        if not found:
            raise InvalidArchive(
                f"{directory} holds no file; for a server that has the model already, leave --directory away"
            )
        if backend == "tensorflow-serving":
            folder = saved_model_folder(found)
            if folder is not None:
                kept = f"{folder}/"
                found = {name.removeprefix(kept): each for name, each in found.items() if name.startswith(kept)}
    except InvalidArchive as exc:
        raise InvalidArchive(f"--directory: {exc.message}") from exc
    return found
