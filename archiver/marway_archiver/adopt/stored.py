"""Golden examples that a version was published with: taken over again it has the same ones, so the same bytes."""

from __future__ import annotations

import zipfile

from marway.answers.difference import golden_of
from marway.answers.golden import examples_in
from marway.errors import ArchiveCorrupt
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.registry import Registry
from marway_archiver.proving.examples import Example

__all__ = ["stored_examples"]


def stored_examples(registry: Registry, record: VersionRecord) -> tuple[Example, ...]:
    """Return the golden examples of a published version, with the answers that it has to give. Blocks.

    Raises:
        ArchiveCorrupt: Its archive is gone from the registry, or is none.
        InvalidRecord: Its golden answers are gone or damaged.
    """
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
