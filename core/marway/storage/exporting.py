"""Versions in one file: the objects of a small registry, with the digest of each, as a canonical zip.

The same versions make the same bytes, whoever exports them and when. The state of a model holds what may be copied with
it (labels of the versions that are there, contracts, what labels ask for, overrides of serving settings), no history.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Final, Literal

from pydantic import Field

from marway.archives import zipformat
from marway.archives.entries import CHUNK_BYTES, Entry, from_bytes
from marway.errors import ArchiveCorrupt, InvalidRecord
from marway.objects import ObjectMissing
from marway.records import ModelState, VersionRecord
from marway.registry import Registry, keys
from marway.registry.encoding import encode, unsealed
from marway.storage.planning import Plan
from marway.stored import Frozen

__all__ = ["EXPORT_MANIFEST", "ExportManifest", "ExportReport", "ObjectFacts", "export"]

EXPORT_MANIFEST: Final = "export.json"


class ObjectFacts(Frozen):
    """An object's sha256 in hex, and its size in bytes."""

    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(ge=0)]


class ExportManifest(Frozen):
    """`export.json`: which registry it was made of, and all objects that are in the file, by their keys."""

    format: Literal[1] = 1
    registry: str
    registry_id: str | None = None
    objects: Mapping[str, ObjectFacts]


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What was written: the file's size and digest, and how many objects are in it."""

    path: Path
    bytes: int
    sha256: str
    objects: int


def export(
    source: Registry, plan: Plan, path: Path, *, tick: Callable[[int], None] = lambda _count: None
) -> ExportReport:
    """Write what is planned into a file; one that is there is replaced once the new one is whole. Blocks.

    Args:
        source: Where the versions are.
        plan: Which.
        path: The file.
        tick: Told the bytes of each piece that was written.

    Raises:
        ArchiveCorrupt, InvalidRecord: An object is missing or damaged; there is no file then.
        OSError: The file cannot be written.
    """
    identity = source.identity()
    entries = {entry.name: (entry, sha256) for entry, sha256 in _entries(source, plan)}
    manifest = ExportManifest(
        registry=source.url,
        registry_id=None if identity is None else identity.id,
        objects={
            name: ObjectFacts(sha256=sha256, bytes=entry.size) for name, (entry, sha256) in sorted(entries.items())
        },
    )
    written = [from_bytes(EXPORT_MANIFEST, encode(manifest)), *(entry for entry, _ in entries.values())]
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w+b") as file:
            os.fchmod(file.fileno(), 0o644)
            zipformat.write_archive(file, written, tick)
            file.flush()
            os.fsync(file.fileno())
            sha256, size = zipformat.file_digest(file, lambda _count: None)
        Path(temporary).replace(path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return ExportReport(path, size, sha256, len(entries))


def _entries(source: Registry, plan: Plan) -> Iterator[tuple[Entry, str]]:
    """Yield what is written, with its digest; an object that several versions use comes each time."""
    for record in plan.records:
        yield _document(source, keys.record_key(record.name, record.version))
        for key in keys.objects_of(record):
            yield _content(source, key)
        for key in _beside(source, record):
            yield _document(source, key)
    for name in sorted({record.name for record in plan.records}):
        state = _state(source.state(name), set(plan.versions(name)))
        data = encode(state, key=keys.state_key(name))
        yield from_bytes(keys.state_key(name), data), hashlib.sha256(data).hexdigest()
        for ref in state.contracts.values():
            yield _document(source, keys.contract_object_key(name, ref.id))
    if source.identity() is not None:
        yield _document(source, keys.IDENTITY)


def _beside(source: Registry, record: VersionRecord) -> Iterator[str]:
    """Yield what makes a version a published one, and what is proved of it."""
    yield keys.pointer_key(record.name.lower())
    ids = (record.id,) if record.id.startswith("mv_") else tuple(dict.fromkeys((record.id.lower(), record.id)))
    for each in ids:
        if source.store.size(keys.pointer_key(each)) is not None:
            yield keys.pointer_key(each)
    for prefix in (keys.proofs_prefix(record.archive.sha256), keys.checks_prefix(record.archive.sha256)):
        yield from source.store.keys(prefix)


def _state(state: ModelState, versions: set[str]) -> ModelState:
    """Return what of a model's state goes with versions: who agreed to what is of this registry alone."""
    return ModelState(
        labels={label: at for label, at in sorted(state.labels.items()) if at in versions},
        serving={key: each for key, each in state.serving.items() if key == "*" or key in versions},
        protection={
            label: each.model_copy(update={"approved": (), "asked": ()})
            for label, each in sorted(state.protection.items())
        },
        contracts=dict(sorted(state.contracts.items())),
    )


def _document(source: Registry, key: str) -> tuple[Entry, str]:
    """Return a JSON document as it is, its own digest checked."""
    try:
        data = source.store.get(key).data
    except ObjectMissing as exc:
        raise InvalidRecord(f"{source.url} has no {key}: `marway gc --scrub` says what to do") from exc
    unsealed(data, key=key)
    return from_bytes(key, data), hashlib.sha256(data).hexdigest()


def _content(source: Registry, key: str) -> tuple[Entry, str]:
    """Return an object whose digest is its name; that is checked while it is read."""
    sha256 = PurePosixPath(key).stem
    size = source.store.size(key)
    if size is None:
        raise ArchiveCorrupt(f"{source.url} has no {key}: `marway gc --scrub` says what to do")

    def chunks() -> Iterator[bytes]:
        digest = hashlib.sha256()
        with source.store.open(key) as handle:
            while piece := handle.read(CHUNK_BYTES):
                digest.update(piece)
                yield piece
        if digest.hexdigest() != sha256:
            raise ArchiveCorrupt(f"{key} of {source.url} is damaged: its bytes have sha256 {digest.hexdigest()}")

    return Entry(key, size, f"{source.url}/{key}", chunks), sha256
