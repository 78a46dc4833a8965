"""Publishes graphs: checked against what is published, pinned, packed as a bundle and stored."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marway.archives.entries import reason
from marway.errors import InvalidGraph
from marway.graphs import (
    GRAPH_BACKEND,
    GRAPH_FILE,
    Graph,
    check_graph,
    encode_graph,
    parse_graph,
    pinned,
    references,
)
from marway.graphs.document import DOCUMENT_BYTES_MAX
from marway.records import VersionRecord
from marway.refs import Reference, check_model_name, check_version
from marway.registry import Registry
from marway_archiver.packing import StrPath
from marway_archiver.publishing.bundles import publish_bundle
from marway_archiver.publishing.register import opened_registry

__all__ = ["publish_graph", "read_document"]


def read_document(path: StrPath) -> Graph:
    """Return the graph in a file of JSON or YAML.

    Raises:
        InvalidGraph: It cannot be read, or is none; the message names the file, and the node.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
        return parse_graph(data)
    except OSError as exc:
        raise InvalidGraph(f"{path} cannot be read: {reason(exc)}") from exc
    except InvalidGraph as exc:
        raise InvalidGraph(f"{path}: {exc.message}") from exc


def publish_graph(
    graph: Graph | StrPath,
    *,
    model_name: str,
    version: str,
    registry: str | Registry,
    create_registry: bool = False,
    label: str | None = None,
    record: Mapping[str, Any] | Path | None = None,
    note: str | None = None,
    gateway: str | None = None,
    force: bool = False,
    examples: Sequence[Any] = (),
    tolerance: float | None = None,
) -> VersionRecord:
    """Publish a graph as a version: its document is stored as it is, with a version in the place of each label to pin.

    Args:
        graph: The graph, or a file of JSON or YAML with its document.
        model_name: What it is asked by; see `marway.refs`.
        version: It never changes once published.
        registry: As `publish` takes it, like what is not explained here. All that the graph's nodes name has to be
            published there.
        create_registry: Make the registry if there is none yet.
        label: Point this label at the version afterwards.
        record: Facts about the version.
        note: Why, for the label's history.
        gateway: URL of a gateway's admin port, which runs the graph's golden examples before the label moves.
        force: Move the label without a proof.
        examples: Golden examples: `marway_archiver.Example`, each with its output.
        tolerance: How far numbers of equal answers may lie apart, relative and absolute; 1e-4 by default.

    Raises:
        InvalidGraph: It cannot be run; the message has all that is wrong, each with the node's name.
        MarwayError: As `publish`.
    """
    check_model_name(model_name)
    check_version(version)
    document = graph if isinstance(graph, Graph) else read_document(graph)
    opened = opened_registry(registry, create_registry=create_registry)
    if create_registry:
        opened.create()
    # Storing it checks this, too; before that, labels to pin have to stand for something.
    problems = check_graph(document, opened, model=model_name)
    if problems:
        raise InvalidGraph(f"{model_name} {version} cannot be published: {'; '.join(problems)}", model=model_name)
    versions = {
        (each.model, each.selector): opened.resolve(Reference(each.model, each.selector)).version
        for each in references(document)
        if each.pin and not each.is_pinned
    }
    with tempfile.TemporaryDirectory(prefix="marway-graph-") as directory:
        (Path(directory) / GRAPH_FILE).write_bytes(encode_graph(pinned(document, versions)))
        return publish_bundle(
            model_name=model_name,
            version=version,
            backend=GRAPH_BACKEND,
            directory=directory,
            registry=opened,
            create_registry=create_registry,
            label=label,
            record=record,
            note=note,
            gateway=gateway,
            force=force,
            examples=examples,
            tolerance=tolerance,
        )
