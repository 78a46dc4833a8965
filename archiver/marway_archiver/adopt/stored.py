"""What a version was published with: taken over again it keeps that, and what the source says otherwise is told."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from typing import Final

from marway.answers.difference import golden_of
from marway.answers.golden import examples_in
from marway.errors import ArchiveCorrupt
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver.adopt.found import FoundModel
from marway_archiver.proving.examples import Example, encode_all

__all__ = ["differences_from_stored", "examples_as_before"]

_COMPARED: Final = (
    "min_workers",
    "max_workers",
    "max_batch_rows",
    "load_timeout_s",
    "predict_timeout_s",
    "protocol",
    "pods",
)


def examples_as_before(
    registry: Registry, before: VersionRecord, examples: Sequence[Example], messages: list[str]
) -> Sequence[Example]:
    """Return the golden examples that a version has, whatever others there are now: it never changes. Blocks.

    Raises:
        ArchiveCorrupt: Its archive is gone from the registry, or is none.
        InvalidRecord: Its golden answers are gone or damaged.
    """
    stored = _stored_examples(registry, before)
    if examples and encode_all(examples)[1] != encode_all(stored)[1]:
        messages.append(
            f"it was published before with {len(stored)} golden example{'s' * (len(stored) != 1)}, and keeps "
            "these: another version takes others"
        )
    return stored


def differences_from_stored(model: FoundModel, record: VersionRecord) -> Iterator[str]:
    """Yield what a version that was published before is served otherwise with than the source now says."""
    unproved = record.archive.kind == "mar" and record.serving.max_batch_rows == 1
    for name in _COMPARED:
        if name == "max_batch_rows" and unproved:
            continue  # no golden examples had shown that batches are safe: that is no setting to be changed by hand
        if name in model.serving.model_fields_set and getattr(model.serving, name) != getattr(record.serving, name):
            yield (
                f"{record.name} {record.version} was published before with {name} {getattr(record.serving, name)}, and "
                f"the source says {getattr(model.serving, name)}: `marway serving` changes that"
            )


def _stored_examples(registry: Registry, record: VersionRecord) -> tuple[Example, ...]:
    """Return the golden examples of a published version, with the answers that it has to give."""
    document = golden_of(registry, record)
    if document is None:
        return ()
    try:
        with registry.open_archive(record.archive) as handle, zipfile.ZipFile(handle) as archive:
            inputs = examples_in(archive, record.archive.kind)
    except (ObjectMissing, zipfile.BadZipFile) as exc:
        raise ArchiveCorrupt(
            f"{registry.url} has no whole archive for {record.name} {record.version}: publish it again"
        ) from exc
    answers = (each.answer.value for each in document.examples)
    return tuple(
        Example(each.data, answer, each.content_type, each.status) for each, answer in zip(inputs, answers, strict=True)
    )
