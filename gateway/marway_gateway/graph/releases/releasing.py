"""Graphs as versions that are released: loaded, proved, compared and asked what consumers rely on.

No pod has a graph, so the gateway does all of it, as it answers its callers: a graph is loaded when the versions that
its nodes ask are, and proved when it gives its golden answers through them.
"""

from __future__ import annotations

import asyncio
import hashlib
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from typing import Final

from marway import __version__
from marway.answers.difference import golden_difference, golden_of
from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, examples_in
from marway.deadline import Deadline
from marway.errors import ArchiveCorrupt, DeadlineExceeded, InvalidArchive, InvalidRecord, clip
from marway.graphs import TABLE_BACKEND
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.refs import new_ulid
from marway.registry import Registry
from marway.resolve.reader import RegistryReader
from marway.resolve.resolved import Resolved
from marway.wire.comparison import Comparison
from marway.wire.pods import LoadReport, ModelStatus
from marway_gateway.admin.graph_versions import GATEWAY, Part
from marway_gateway.graph.releases.asker import Asker, Asks
from marway_gateway.graph.releases.comparing import Inputs, compared
from marway_gateway.graph.releases.parts import Parts
from marway_gateway.graph.tables.tables import Tables

__all__ = ["GraphReleases"]

_PIECE_BYTES: Final = 1024 * 1024
_SERVER_VERSIONS: Final = {"marway": __version__}


class GraphReleases:
    """Has graphs loaded, proved and compared.

    Args:
        predictor: Gives what makes predict calls.
        parts: Knows what the nodes of graphs ask.
        reader: Reads golden examples.
        tables: Opens tables, which are released as graphs are.
    """

    def __init__(self, predictor: Callable[[], Asks], parts: Parts, reader: RegistryReader, tables: Tables) -> None:
        self._asker = Asker(predictor)
        self._parts = parts
        self._reader = reader
        self._tables = tables

    async def parts(self, record: VersionRecord) -> tuple[Part, ...]:
        """Return the versions that a graph's nodes ask now, as `Parts.of`; a table asks none."""
        if record.backend == TABLE_BACKEND:
            return ()
        return await self._parts.of(record)

    async def report(self, version: Resolved, *, prove: bool, deadline: Deadline) -> LoadReport:
        """Return what is to be said of a graph whose parts are loaded: with ``prove`` of all its golden answers.

        A table is fetched, checked and opened.

        Raises:
            ArchiveCorrupt, InvalidArchive, InvalidRecord: The golden inputs or answers cannot be read.
            Unavailable, DeadlineExceeded: An answer could not be had, which says nothing of the graph.
        """
        began, record = time.monotonic(), version.record
        document: GoldenDocument | None = None
        inputs: Sequence[ExampleInput] = ()
        if record.backend == TABLE_BACKEND:
            await self._opened(record, deadline)
        elif prove and record.golden_sha256 is not None:
            document, inputs = await self._reader.call(_golden, self._reader.registry, record)
        differences = []
        for number, example in enumerate(inputs):
            got = (await self._asker.ask(version, example, ids=f"golden-{new_ulid()}", deadline=deadline)).answer
            difference = await asyncio.to_thread(_difference, document, number, example, got)
            if difference is not None:
                differences.append(f"example {number + 1}: {difference}")
        return LoadReport(
            model=ModelStatus(id=record.id, name=record.name, version=record.version, state="ready"),
            golden_sha256=document.sha256 if document is not None else None,
            examples=len(inputs),
            differences=tuple(differences),
            duration_s=time.monotonic() - began,
            server=GATEWAY,
            server_versions=_SERVER_VERSIONS,
        )

    async def compare(self, version: Resolved, base: Resolved | None, *, deadline: Deadline) -> Comparison:
        """Return how a version answers the golden inputs of another one, or its own; one of them is a graph.

        Raises:
            MarwayError: As `prove`.
        """
        if version.record.backend == TABLE_BACKEND:
            return Comparison(version=version.record.version, not_compared="tables give rows, and no answers")
        used = Inputs((), version.record.version)
        for each in (base, version):
            if each is not None and not used.examples:
                document, examples = await self._reader.call(_golden, self._reader.registry, each.record)
                used = Inputs(examples, each.record.version, document if each is base else None)
        return await compared(self._asker, version, base, used, deadline=deadline)

    async def _opened(self, table: VersionRecord, deadline: Deadline) -> None:
        """Fetch a table if it is not here, and open it.

        Raises:
            DeadlineExceeded: It took too long; the fetch goes on.
        """
        try:
            async with asyncio.timeout(deadline.left_s()):
                await self._tables.open(table)
        except TimeoutError as exc:
            raise DeadlineExceeded(
                f"table {table.name} {table.version} was not here within {deadline.timeout_s:g} s; its fetch goes on",
                model=table.name,
                version=table.version,
            ) from exc

    async def answer(self, version: Resolved, data: bytes, content_type: str, *, deadline: Deadline) -> GoldenAnswer:
        """Return what a graph answers to a request of a contract.

        Raises:
            Unavailable, DeadlineExceeded: Nobody could answer, which says nothing of the graph.
        """
        example = ExampleInput(data, content_type)
        return (await self._asker.ask(version, example, ids=f"contract-{new_ulid()}", deadline=deadline)).answer


def _difference(document: GoldenDocument | None, number: int, example: ExampleInput, got: GoldenAnswer) -> str | None:
    if document is None:
        return None
    if number >= len(document.examples) or document.examples[number].input_sha256 != example.sha256:
        return "there is no golden answer to this input"
    return golden_difference(document, number, got)


def _golden(registry: Registry, record: VersionRecord) -> tuple[GoldenDocument | None, Sequence[ExampleInput]]:
    """Return a version's golden answers, and the inputs in its archive, whose digest is checked. Blocks.

    Raises:
        ArchiveCorrupt, InvalidArchive, InvalidRecord: They are not there, or damaged.
    """
    document, which = golden_of(registry, record), f"{record.name} {record.version}"
    with tempfile.TemporaryFile(prefix="marway-golden-") as file:
        digest = hashlib.sha256()
        try:
            with registry.open_archive(record.archive) as archive:
                while piece := archive.read(_PIECE_BYTES):
                    digest.update(piece)
                    file.write(piece)
        except ObjectMissing as exc:
            raise ArchiveCorrupt(f"the archive of {which} is not in the registry: publish it again") from exc
        if digest.hexdigest() != record.archive.sha256:
            raise ArchiveCorrupt(f"the archive of {which} has other bytes than its record says")
        try:
            with zipfile.ZipFile(file) as opened:
                inputs = examples_in(opened, record.archive.kind)
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as exc:
            raise InvalidArchive(f"the golden inputs of {which} cannot be read: {clip(str(exc), 200)}") from exc
    if document is not None and len(inputs) != len(document.examples):
        raise InvalidRecord(
            f"{which} carries {len(inputs)} golden inputs and has {len(document.examples)} golden answers: publish it "
            "again"
        )
    return document, inputs
