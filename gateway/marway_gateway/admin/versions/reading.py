"""Reads what is inside a version: for the admin routes and for the console's pages.

Golden examples may be many megabytes, so they are read in the threads of changes: those in which predictions look up
their versions stay free, however slow the store is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from marway.answers.comparison import compare_stored
from marway.answers.golden import ExampleInput
from marway.errors import InvalidRecord, NotFound
from marway.records import VersionRecord
from marway.registry import Registry
from marway.versions.contents import files_of, golden_pairs
from marway.versions.differences import different_facts, different_files, facts_of
from marway.wire.comparison import Comparison
from marway_gateway.admin.versions.views import DifferencesView, ExamplesView, FilesView, ProofsView, ProofView
from marway_gateway.gateway import Gateway

__all__ = ["VersionReading"]

T = TypeVar("T")


class VersionReading:
    """What is inside one version.

    Args:
        gateway: Its parts.
        record: The version's.
    """

    def __init__(self, gateway: Gateway, record: VersionRecord) -> None:
        self._gateway = gateway
        self.record = record

    @classmethod
    async def find(cls, gateway: Gateway, model: str, version: str) -> VersionReading:
        """Return the reading of a version, or of the one that a label points at.

        Raises:
            InvalidReference, NotFound: There is none.
            RegistryUnavailable: The registry does not answer.
        """
        return cls(gateway, (await gateway.resolver.resolve(model, version)).record)

    async def files(self, limit: int) -> FilesView:
        """Return what its archive holds.

        Raises:
            ArchiveCorrupt, RegistryUnavailable: It cannot be read.
        """
        return FilesView.of(self.record, await self._call(files_of), limit)

    async def examples(self, limit: int) -> ExamplesView:
        """Return its golden examples, in which long inputs and answers are left out.

        Raises:
            ArchiveCorrupt, InvalidRecord, RegistryUnavailable: They cannot be read.
        """
        return await self._call(
            lambda registry, record: ExamplesView.of(record, *golden_pairs(registry, record), limit)
        )

    async def example(self, number: int) -> ExampleInput:
        """Return golden input ``number``, from 1.

        Raises:
            NotFound: It has no such example.
            ArchiveCorrupt, InvalidRecord, RegistryUnavailable: It cannot be read.
        """
        _, pairs = await self._call(golden_pairs)
        if not 1 <= number <= len(pairs):
            has = f"it has {len(pairs)}, numbered from 1" if pairs else "it has none"
            raise NotFound(f"{self.record.name} {self.record.version} has no golden example {number}: {has}")
        return pairs[number - 1].input

    async def proofs(self) -> ProofsView:
        """Return what is proved about its archive; proofs that are damaged prove nothing, and are left out.

        Raises:
            RegistryUnavailable: They cannot be read.
        """
        return await self._call(_proofs)

    async def differences(self, base: VersionRecord) -> DifferencesView:
        """Return how it differs from another version of its model.

        Raises:
            ArchiveCorrupt, RegistryUnavailable: An archive cannot be read.
        """
        return await self._call(lambda registry, record: _differences(registry, base, record))

    async def _call(self, work: Callable[[Registry, VersionRecord], T]) -> T:
        writer = self._gateway.writer
        return await writer.call(work, writer.registry, self.record)


def _proofs(registry: Registry, record: VersionRecord) -> ProofsView:
    found = [ProofView.of(each) for each in registry.proofs(record.archive.sha256, skip_damaged=True)]
    return ProofsView(model=record.name, version=record.version, proofs=tuple(reversed(found)))


def _differences(registry: Registry, base: VersionRecord, record: VersionRecord) -> DifferencesView:
    before, after = (
        {each.name: (each.size, each.crc32) for each in files_of(registry, side)} for side in (base, record)
    )
    return DifferencesView(
        a=f"{base.name}/{base.version}",
        b=f"{record.name}/{record.version}",
        record=different_facts(facts_of(base), facts_of(record)),
        files=different_files(before, after),
        answers=_stored(registry, base, record),
    )


def _stored(registry: Registry, base: VersionRecord, record: VersionRecord) -> Comparison:
    if base.version == record.version:
        why = "it is one and the same version"
    else:
        try:
            return compare_stored(registry, record, base)
        except InvalidRecord as exc:
            why = exc.message
    return Comparison(version=record.version, base=base.version, method="stored", not_compared=why)
