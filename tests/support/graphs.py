"""Graphs in registries, as `marway graph publish` leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marway.graphs import GRAPH_BACKEND, GRAPH_FILE, encode_graph, parse_graph
from marway.records import VersionRecord
from marway.registry import Registry
from support.bundles import write_bundle
from support.registry import record_of

__all__ = ["publish_graph"]


def publish_graph(
    registry: Registry,
    scratch: Path,
    document: Mapping[str, Any],
    name: str = "tour",
    version: str = "1.0",
    *,
    label: str | None = "PROD",
    **facts: Any,
) -> VersionRecord:
    """Publish a graph, and point a label at it."""
    path = scratch / f"{name}-{version}.bundle"
    content = encode_graph(parse_graph(json.dumps(document)))
    write_bundle(path, GRAPH_BACKEND, {GRAPH_FILE: content}, name=name, version=version)
    record = record_of(path.read_bytes(), name=name, version=version, kind="bundle", backend=GRAPH_BACKEND, **facts)
    published = registry.publish(record, path, golden=None, wheels={})
    if label is not None:
        registry.release(name, version, label=label, by="test")
    return published
