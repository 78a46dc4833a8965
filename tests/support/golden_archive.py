"""Published versions whose archives carry golden examples, and have files to look at: no model server is needed."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marway.answers.golden import ExampleInput, GoldenAnswer, GoldenDocument, GoldenExample, encode_examples
from marway.records import VersionRecord
from marway.registry import Registry
from support.registry import publish, record_of

__all__ = ["publish_golden"]


def publish_golden(
    registry: Registry,
    directory: Path,
    version: str = "1.0",
    *,
    examples: Sequence[ExampleInput] = (ExampleInput(b"wake me at seven", "text/plain"),),
    answers: Sequence[Any] = ({"label": "alarm"},),
    files: dict[str, bytes] | None = None,
    name: str = "intent",
    label: str | None = "PROD",
    **facts: Any,
) -> VersionRecord:
    """Publish a version with these golden inputs and answers (JSON), and point a label at it."""
    holds = {"handler.py": b"def handle(data, context): ...\n", **(files or {}), **encode_examples(examples)}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for inside, data in holds.items():
            archive.writestr(zipfile.ZipInfo(inside), data)
    data = out.getvalue()
    golden = GoldenDocument(
        archive_sha256=record_of(data).archive.sha256,
        examples=tuple(
            GoldenExample(
                input_sha256=each.sha256,
                content_type=each.content_type,
                answer=GoldenAnswer(
                    status=each.status or 200, kind="json", content_type="application/json", value=answer
                ),
            )
            for each, answer in zip(examples, answers, strict=True)
        ),
        batch=True,
        batch_sizes=(2,),
    )
    return publish(registry, directory, name, version, label=label, data=data, golden=golden.encode(), **facts)
