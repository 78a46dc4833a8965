"""Graphs with golden examples, as `marway graph publish --examples` leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, encode_examples
from marway.archives.entries import BUNDLE_MANIFEST_NAME, from_bytes
from marway.archives.zipformat import write_archive
from marway.bundles import BundleManifest
from marway.graphs import GRAPH_BACKEND, GRAPH_FILE, encode_graph, parse_graph
from marway.records import VersionRecord
from marway.registry import Registry
from support.registry import record_of

__all__ = ["publish_golden_graph"]

_JSON = "application/json"


def publish_golden_graph(
    registry: Registry,
    scratch: Path,
    document: Mapping[str, Any],
    examples: Sequence[tuple[Any, Any]] = (),
    *,
    name: str = "tour",
    version: str = "1.0",
    label: str | None = None,
    **facts: Any,
) -> VersionRecord:
    """Publish a graph with the answers that it is to give to inputs, both as JSON."""
    graph = encode_graph(parse_graph(json.dumps(document)))
    inputs = [ExampleInput(json.dumps(given).encode(), _JSON) for given, _ in examples]
    manifest = BundleManifest.model_validate({"name": name, "version": version, "backend": GRAPH_BACKEND})
    files = {f"{manifest.root}/{GRAPH_FILE}": graph, **encode_examples(inputs, "bundle")}
    told = from_bytes(BUNDLE_MANIFEST_NAME, manifest.model_dump_json(exclude_none=True).encode())
    path = scratch / f"{name}-{version}.bundle"
    with path.open("xb") as out:
        write_archive(out, [told, *(from_bytes(*each) for each in files.items())], lambda _: None)
    record = record_of(path.read_bytes(), name=name, version=version, kind="bundle", backend=GRAPH_BACKEND, **facts)
    golden = None
    if examples:
        answers = (GoldenAnswer(kind="json", content_type=_JSON, value=value) for _, value in examples)
        pairs = zip(inputs, answers, strict=True)
        golden = GoldenDocument(
            archive_sha256=record.archive.sha256,
            source="given",
            examples=tuple(
                GoldenExample(input_sha256=given.sha256, content_type=_JSON, answer=answer) for given, answer in pairs
            ),
        ).encode()
        record = record.model_copy(update={"golden_sha256": GoldenDocument.model_validate_json(golden).sha256})
    published = registry.publish(record, path, golden=golden, wheels={})
    if label is not None:
        registry.release(name, version, label=label, by="test")
    return published
