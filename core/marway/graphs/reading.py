"""Reads a graph's document out of its bundle."""

from __future__ import annotations

import hashlib
import tempfile
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from marway.bundles.reading import content_of, opened_bundle
from marway.errors import ArchiveCorrupt, InvalidArchive, InvalidGraph
from marway.graphs.document import DOCUMENT_BYTES_MAX, GRAPH_BACKEND, GRAPH_FILE, Graph, parse_graph
from marway.objects import ObjectMissing
from marway.records import ArchiveRef, VersionRecord

__all__ = ["GRAPH_ARCHIVE_BYTES_MAX", "TENSOR_FRAMEWORK", "Archives", "fetch_graph", "read_graph", "takes_tensors"]

GRAPH_ARCHIVE_BYTES_MAX: Final = 64 * 1024 * 1024
"""Largest archive of a graph: it holds the document and golden examples, and gateways fetch it whole."""
TENSOR_FRAMEWORK: Final = "open-inference"
"""What the record of a graph names as its framework whose requests are messages of tensors: `Graph.protocol`."""
_PIECE_BYTES: Final = 1024 * 1024


def takes_tensors(record: VersionRecord) -> bool:
    """Return whether a version is a graph that is given messages of the Open Inference Protocol as they came."""
    return record.backend == GRAPH_BACKEND and record.framework == TENSOR_FRAMEWORK


class Archives(Protocol):
    """Where archives are; `marway.registry.Registry` is one."""

    def open_archive(self, archive: ArchiveRef) -> AbstractContextManager[BinaryIO]:
        """Open an archive's bytes; raise `ObjectMissing` where there are none."""


def read_graph(path: Path) -> Graph:
    """Return the graph that a bundle holds; what it names outside of itself is not looked at. Blocks.

    Raises:
        InvalidArchive: There is no file that could be read, or it is no bundle, or a damaged one.
        InvalidGraph: It holds no graph, or one that cannot be run; the message names the node.
    """
    with opened_bundle(path) as bundle:
        manifest = bundle.manifest
        if manifest.backend != GRAPH_BACKEND:
            raise InvalidGraph(f"{manifest.name} {manifest.version} is no graph: it is for {manifest.backend}")
        name = f"{manifest.root}/{GRAPH_FILE}"
        found = next((each for each in bundle.files if each.name == name), None)
        if found is None:
            raise InvalidGraph(f"{manifest.name} {manifest.version} has no {name}: `marway graph publish` packs graphs")
        if found.size > DOCUMENT_BYTES_MAX:
            raise InvalidGraph(f"{name} has more than {DOCUMENT_BYTES_MAX} bytes")
        return parse_graph(b"".join(content_of(bundle.file, found)))


def fetch_graph(archives: Archives, record: VersionRecord) -> Graph:
    """Fetch a graph's archive, check its digest, and return the graph. Blocks; nothing is left on the disk.

    Raises:
        ArchiveCorrupt: It is not there, or has other bytes than the record says.
        InvalidGraph: It holds no graph, or one that cannot be run.
        RegistryUnavailable: The store cannot be read.
    """
    which = f"{record.name} {record.version}"
    if record.backend != GRAPH_BACKEND:
        raise InvalidGraph(f"{which} is no graph: it is for {record.backend}", model=record.name)
    if record.archive.size_bytes > GRAPH_ARCHIVE_BYTES_MAX:
        raise InvalidGraph(
            f"the archive of {which} has {record.archive.size_bytes} bytes; {GRAPH_ARCHIVE_BYTES_MAX} are most of a "
            "graph: give it fewer or smaller golden examples",
            model=record.name,
        )
    digest, size = hashlib.sha256(), 0
    with tempfile.NamedTemporaryFile(prefix="marway-graph-") as file:
        try:
            with archives.open_archive(record.archive) as handle:
                while size <= record.archive.size_bytes and (piece := handle.read(_PIECE_BYTES)):
                    digest.update(piece)
                    size += len(piece)
                    file.write(piece)
        except ObjectMissing as exc:
            raise ArchiveCorrupt(f"there is no archive of {which}: publish it again", model=record.name) from exc
        if digest.hexdigest() != record.archive.sha256:
            raise ArchiveCorrupt(f"the archive of {which} has other bytes than its record says", model=record.name)
        file.flush()
        try:
            return read_graph(Path(file.name))
        except InvalidArchive as exc:
            reason = exc.message.removeprefix(f"{file.name}: ")
            raise InvalidGraph(f"the archive of {which} is no bundle of a graph: {reason}", model=record.name) from exc
