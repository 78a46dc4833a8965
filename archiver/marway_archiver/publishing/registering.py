"""Publishes an archive that may be anybody's for a gateway, which runs this in a process of its own:
`python -m marway_archiver.publishing.registering ARCHIVE --registry URL`.

Nothing of the archive is run: its golden examples are answered by a pod, where there are answers to compare with, and
never here. So a version that is published so is served one row at a time until its serving settings say otherwise.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from marway.errors import InvalidArchive, MarwayError
from marway.records import VersionRecord
from marway.refs import check_model_name
from marway.wire.problems import problem_of
from marway_archiver.archives import opened_archive
from marway_archiver.atomic_output import signals_raise
from marway_archiver.bundles.checking import names_bundle
from marway_archiver.contents.manifest import Manifest
from marway_archiver.packing import PackedArchive, place_archive
from marway_archiver.publishing.facts import RecordFacts
from marway_archiver.publishing.locking import LockOptions
from marway_archiver.publishing.register import opened_registry, store

__all__ = ["main", "register_archive"]


def register_archive(
    archive: Path, registry: str, *, model_name: str | None = None, handler: str | None = None, publisher: str
) -> VersionRecord:
    """Check an archive, write it canonically if it is not, and publish it.

    Args:
        archive: The `.mar` file.
        registry: URL of the registry.
        model_name: In place of the name in its manifest.
        handler: In place of the handler in its manifest, as TorchServe's `handler` of a registration.
        publisher: Who, for the record.

    Raises:
        InvalidArchive: It is hostile or damaged, or its handler is not in it.
        MarwayError: As `publish_archive`.
    """
    if names_bundle(archive):
        raise InvalidArchive(f"{archive.name} is a bundle: publish it with `marway publish`")
    opened = opened_registry(registry, create_registry=False)
    with signals_raise(), tempfile.TemporaryDirectory(prefix="marway-register-") as directory:
        with opened_archive(archive) as (info, entries):
            manifest = info.manifest
            assert manifest is not None
            changes: dict[str, object] = {}
            if model_name is not None:
                changes["model_name"] = check_model_name(model_name)
            if handler is not None:
                changes["handler"] = handler
            changed = manifest.model_copy(update={"model": manifest.model.model_copy(update=changes)})
            packed = PackedArchive(info.path, info.sha256, info.size_bytes, manifest, info.warnings, info.config)
            if changed != manifest or not info.canonical:
                final = Path(directory) / f"{changed.model.model_name}.mar"
                place_archive(final, changed, entries.values(), info.warnings, force=False, progress=None)
                packed = _checked(final, changed)
        return store(
            packed,
            RecordFacts(publisher=publisher),
            opened,
            create_registry=False,
            lock=LockOptions.of(True, ()),
            release=None,
            progress=None,
        )


def _checked(path: Path, manifest: Manifest) -> PackedArchive:
    """Return an archive that was written here, whose manifest may not be the one that came with it.

    Raises:
        InvalidArchive: It does not go with the files.
    """
    try:
        with opened_archive(path) as (info, _):
            return PackedArchive(path, info.sha256, info.size_bytes, manifest, info.warnings, info.config)
    except InvalidArchive as exc:
        raise InvalidArchive(exc.message.replace(f"{path}: ", "")) from exc


def main() -> None:
    """Publish, and say as one JSON document what was stored or why nothing was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("archive", type=Path)
    parser.add_argument("--registry", required=True)
    parser.add_argument("--publisher", required=True)
    parser.add_argument("--model-name")
    parser.add_argument("--handler")
    given = parser.parse_args()
    try:
        stored = register_archive(
            given.archive,
            given.registry,
            model_name=given.model_name,
            handler=given.handler,
            publisher=given.publisher,
        )
        document = {"record": stored.model_dump(mode="json")}
    except MarwayError as exc:
        problem, _ = problem_of(exc)
        document = {"problem": problem.model_dump(mode="json")}
    json.dump(document, sys.stdout)


if __name__ == "__main__":
    main()
