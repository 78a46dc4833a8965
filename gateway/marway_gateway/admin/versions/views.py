"""What the routes about one version answer, with examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import Field
from pydantic.config import JsonDict

from marway.answers.golden import DEFAULT_TOLERANCE, GoldenAnswer, GoldenDocument, Kind, Tolerance
from marway.records import Proof, VersionRecord
from marway.versions.contents import ArchiveFile, GoldenPair
from marway.versions.differences import FieldDifference, FileDifference
from marway.wire.comparison import Comparison
from marway_gateway.json_models import JsonModel, JsonValue, examples

__all__ = ["DifferencesView", "ExampleView", "ExamplesView", "FileView", "FilesView", "ProofView", "ProofsView"]

TEXT_BYTES_MAX: Final = 64 * 1024
"""Longest input, and longest answer, that is shown in full: a page of them stays small."""

_DIGEST: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_FILE: Final[JsonDict] = {"name": "handler.py", "size_bytes": 1874, "stored_bytes": 702, "crc32": "8c736521"}
_EXAMPLE: Final[JsonDict] = {
    "number": 1,
    "content_type": "text/plain",
    "size_bytes": 16,
    "sha256": _DIGEST,
    "text": "wake me at seven",
    "status": None,
    "answer": {"status": 200, "kind": "json", "content_type": "application/json", "value": {"label": "alarm"}},
}
_PROOF: Final[JsonDict] = {
    "kind": "pod",
    "found": "native reproduced its golden answers",
    "server": "native",
    "server_versions": {"python": "3.11.7", "torch": "2.12"},
    "golden_sha256": _DIGEST,
    "duration_s": 0.41,
    "at": "2026-01-31T12:00:00Z",
    "by": "pod pod-0",
}
_COMPARISON: Final[JsonDict] = {
    "version": "1.1",
    "base": "1.0",
    "method": "stored",
    "inputs_of": "1.0",
    "inputs": 6,
    "compared": 6,
    "equal": 5,
    "differences": ['example 2: at label: "timer" was expected, "alarm" came'],
}


class FileView(JsonModel):
    """A file of an archive."""

    model_config = examples(_FILE)

    name: str
    size_bytes: int
    stored_bytes: int = Field(description="In the archive, where it may be compressed.")
    crc32: str = Field(description="Of its bytes, hexadecimal.")


class FilesView(JsonModel):
    """What an archive holds."""

    model_config = examples({"model": "intent", "version": "1.0", "total": 4, "files": [_FILE]})

    model: str
    version: str
    total: int = Field(description="How many files there are; those beyond `limit` are left out.")
    files: tuple[FileView, ...] = Field(description="In the archive's order.")

    @classmethod
    def of(cls, record: VersionRecord, files: Sequence[ArchiveFile], limit: int) -> FilesView:
        """Return the view of the first ``limit`` files."""
        shown = tuple(
            FileView(name=each.name, size_bytes=each.size, stored_bytes=each.stored_size, crc32=f"{each.crc32:08x}")
            for each in files[:limit]
        )
        return cls(model=record.name, version=record.version, total=len(files), files=shown)


class AnswerView(JsonModel):
    """What a version answered to a golden input, as it was published."""

    status: int
    kind: Kind = Field(description="What `value` is: JSON, text, base64 of bytes, a tensor, or an error's message.")
    content_type: str | None
    value: JsonValue = Field(description="The answer; null where it is longer than 64 KiB.")
    left_out: bool = Field(default=False, description="Whether it is too long to be shown.")

    @classmethod
    def of(cls, answer: GoldenAnswer) -> AnswerView:
        """Return the view of an answer."""
        fields: dict[str, Any] = {name: getattr(answer, name) for name in ("status", "kind", "content_type")}
        if len(json.dumps(answer.value)) > TEXT_BYTES_MAX:
            return cls(**fields, value=None, left_out=True)
        return cls(**fields, value=answer.value)


class ExampleView(JsonModel):
    """A golden example: what is sent, and what the version answered."""

    model_config = examples(_EXAMPLE)

    number: int = Field(description="From 1; `…/examples/NUMBER` has its bytes.")
    content_type: str | None
    size_bytes: int
    sha256: str = Field(description="Of the input's bytes.")
    text: str | None = Field(description="The input as text; null where it is none, or longer than 64 KiB.")
    status: int | None = Field(description="The status that its answer must have; null means any below 400.")
    answer: AnswerView | None = Field(description="As it was published; null where none is.")

    @classmethod
    def of(cls, number: int, pair: GoldenPair) -> ExampleView:
        """Return the view of example ``number``."""
        given, answer = pair
        return cls(
            number=number,
            content_type=given.content_type,
            size_bytes=len(given.data),
            sha256=given.sha256,
            text=_text(given.data),
            status=given.status,
            answer=None if answer is None else AnswerView.of(answer),
        )


class ExamplesView(JsonModel):
    """A version's golden examples."""

    model_config = examples(
        {
            "model": "intent",
            "version": "1.0",
            "source": "handler",
            "tolerance": {"relative": 1e-4, "absolute": 1e-4},
            "batch": True,
            "batch_sizes": [2, 6],
            "batch_reason": None,
            "total": 6,
            "examples": [_EXAMPLE],
        }
    )

    model: str
    version: str
    source: Literal["handler", "callable", "given"] | None = Field(
        description="Who gave the answers; null where none are published."
    )
    tolerance: Tolerance = Field(description="How far two numbers may lie apart and still be the same answer.")
    batch: bool = Field(description="Whether batches were proved to answer as single calls do.")
    batch_sizes: tuple[int, ...] = Field(description="The sizes that were tried and answered so, in rows.")
    batch_reason: str | None = Field(description="Why not, where `batch` is false.")
    total: int = Field(description="How many examples there are; those beyond `limit` are left out.")
    examples: tuple[ExampleView, ...]

    @classmethod
    def of(
        cls, record: VersionRecord, golden: GoldenDocument | None, pairs: Sequence[GoldenPair], limit: int
    ) -> ExamplesView:
        """Return the view of the first ``limit`` examples."""
        return cls(
            model=record.name,
            version=record.version,
            source=None if golden is None else golden.source,
            tolerance=DEFAULT_TOLERANCE if golden is None else golden.tolerance,
            batch=golden is not None and golden.batch,
            batch_sizes=() if golden is None else golden.batch_sizes,
            batch_reason=None if golden is None else golden.batch_reason,
            total=len(pairs),
            examples=tuple(ExampleView.of(number, pair) for number, pair in enumerate(pairs[:limit], 1)),
        )


class ProofView(Proof):
    """What somebody has seen an archive do."""

    found: str = Field(description="What it says, in one line.")

    model_config = examples({"format": 1, "archive_sha256": _DIGEST, **_PROOF})

    @classmethod
    def of(cls, proof: Proof) -> ProofView:
        """Return the view of a proof."""
        fields = {name: getattr(proof, name) for name in Proof.model_fields}
        return cls(**fields, found=proof.finding)


class ProofsView(JsonModel):
    """All that is proved about a version's archive."""

    model_config = examples({"model": "intent", "version": "1.0", "proofs": [_PROOF]})

    model: str
    version: str
    proofs: tuple[ProofView, ...] = Field(description="Newest first.")


class DifferencesView(JsonModel):
    """How a version differs from another one of its model, as `marway diff BASE VERSION` says it."""

    model_config = examples(
        {
            "a": "intent/1.0",
            "b": "intent/1.1",
            "record": [{"field": "training.run_id", "a": "run-7", "b": "run-8"}],
            "files": [{"name": "weights.pt", "change": "changed", "a_bytes": 81234, "b_bytes": 81302}],
            "answers": _COMPARISON,
        }
    )

    a: str = Field(description="The base.")
    b: str = Field(description="The version.")
    record: tuple[FieldDifference, ...] = Field(description="Fields of their records.")
    files: tuple[FileDifference, ...] = Field(description="Files of their archives, by name.")
    answers: Comparison = Field(
        description="Their published golden answers, compared; nothing is run. `POST …/compare` has a pod ask both."
    )


def _text(data: bytes) -> str | None:
    if len(data) > TEXT_BYTES_MAX:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
