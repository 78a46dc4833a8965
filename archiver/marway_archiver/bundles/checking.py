"""Reads bundles that may be anybody's: inspect and check; nothing is unpacked."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from marway.answers.golden import ExampleInput, decode_examples
from marway.archives.entries import Entry, open_regular, read_all
from marway.bundles import BUNDLE_SUFFIX, BundleManifest, check_backend_of_bundle, is_bundle
from marway.bundles.reading import Bundle, BundleFile, content_of, opened_bundle
from marway.errors import InvalidArchive
from marway_archiver.bundles.layout import Layout
from marway_archiver.bundles.packing import PackedBundle, check_files
from marway_archiver.format.zipscan import Scan, scan
from marway_archiver.packing import StrPath
from marway_archiver.progress import Meter, Progress

__all__ = ["BundleInfo", "check_bundle", "inspect_bundle", "names_bundle"]


@dataclass(frozen=True, slots=True)
class BundleInfo:
    """What a bundle holds.

    Attributes:
        path: The file.
        sha256: Digest of its bytes, hex; empty if it could not be read to its end.
        size_bytes: Its size.
        manifest: What it says of itself, if that could be read.
        layout: What its files say of the model.
        files: All its files in their order, the manifest too; none where its structure is not sound.
        problems: Why it would be refused: empty for a bundle that is accepted.
        examples: Its golden inputs.
    """

    path: Path
    sha256: str
    size_bytes: int
    manifest: BundleManifest | None
    layout: Layout = field(default_factory=Layout)
    files: tuple[BundleFile, ...] = ()
    problems: tuple[str, ...] = ()
    examples: tuple[ExampleInput, ...] = ()

    @property
    def model(self) -> tuple[str, str]:
        """The model's name and version; only of a bundle whose manifest could be read."""
        assert self.manifest is not None
        return self.manifest.name, self.manifest.version

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is allowed and may surprise."""
        return self.layout.warnings

    @property
    def packed(self) -> PackedBundle:
        """What packing it returned, without its golden document; only of a bundle that is accepted."""
        assert self.manifest is not None
        return PackedBundle(self.path, self.sha256, self.size_bytes, self.manifest, self.layout, self.layout.warnings)


def names_bundle(path: Path) -> bool:
    """Return whether a file is to be taken for a bundle: it is called one, or begins as one does."""
    return path.suffix == BUNDLE_SUFFIX or (path.is_file() and is_bundle(path))


def check_bundle(path: StrPath, *, progress: Progress | None = None) -> BundleInfo:
    """Read a bundle from end to end; nothing is written or run.

    Raises:
        InvalidArchive: It is hostile, damaged, or something that its server could not load.
    """
    info = inspect_bundle(path, progress=progress)
    if info.problems:
        raise InvalidArchive(f"{info.path}: {info.problems[0]}")
    return info


def inspect_bundle(path: StrPath, *, progress: Progress | None = None) -> BundleInfo:
    """Read a bundle from end to end and say what it holds and what is wrong with it.

    Raises:
        InvalidArchive: There is no file that could be read.
    """
    path = Path(path)
    with os.fdopen(open_regular(path), "rb") as file:
        found = Scan()
        meter = Meter(os.fstat(file.fileno()).st_size, 1, progress)
        manifest: BundleManifest | None = None
        files: tuple[BundleFile, ...] = ()
        try:
            scan(file, found, meter.tick)  # says more of what is wrong than that other bytes are wanted
            with opened_bundle(path) as bundle:
                manifest, files = bundle.manifest, bundle.files
                layout, examples = _contents(bundle)
            info = BundleInfo(path, found.sha256, found.size, manifest, layout, files, (), examples)
        except InvalidArchive as exc:
            problem = exc.message.removeprefix(f"{path}: ")
            info = BundleInfo(path, found.sha256, found.size, manifest, files=files, problems=(problem,))
    meter.end()
    return info


def _contents(bundle: Bundle) -> tuple[Layout, tuple[ExampleInput, ...]]:
    """Return what a bundle's files say of the model, and its golden inputs."""
    manifest = bundle.manifest
    check_backend_of_bundle(manifest.backend)
    entries = {each.name: _entry(bundle, each) for each in bundle.files}
    below = f"{manifest.root}/"
    files = {name.removeprefix(below): each for name, each in entries.items() if name.startswith(below)}
    layout = check_files(manifest.backend, files, below)
    read = decode_examples(lambda name, limit: read_all(entries[name], limit) if name in entries else None, "bundle")
    return layout, read


def _entry(bundle: Bundle, found: BundleFile) -> Entry:
    return Entry(found.name, found.size, found.name, partial(content_of, bundle.file, found))
