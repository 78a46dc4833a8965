"""With what observed rows are compared: what a training run said, golden examples, or an earlier window."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marway.answers.bodies import parts_of
from marway.answers.golden import ExampleInput, GoldenAnswer, decode_golden, examples_in
from marway.errors import InvalidArchive, InvalidRecord, clip
from marway.features.collecting import Rows
from marway.features.summaries import FeatureSummary
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.registry import Registry
from marway.serving import DriftRule
from marway_observations.drift.windows import Window

__all__ = ["NoReference", "golden_reference", "training_reference", "window_reference"]

_ROWS_MIN: Final = 20
"""Fewest rows of a reference: with fewer, no two bins would have the five that a test needs, and room to differ."""


class NoReference(Exception):
    """There is nothing to compare with; the message says why, and what to do about it."""


def training_reference(record: VersionRecord) -> Mapping[str, FeatureSummary]:
    """Return what the training run of a version said of its data.

    Raises:
        NoReference: Nothing.
    """
    if not record.training.features:
        raise NoReference(
            "its record says nothing of its training data: publish versions with --training-data FILE, or compare with "
            "an earlier window (--against 7d)"
        )
    return record.training.features


def golden_reference(registry: Registry, record: VersionRecord, fields: Sequence[str]) -> Mapping[str, FeatureSummary]:
    """Return a summary of a version's golden examples, inputs and the answers to them.

    Raises:
        NoReference: It has none, too few, or they cannot be read.
        RegistryUnavailable: The registry cannot be read.
    """
    if record.golden_sha256 is None:
        raise NoReference("it has no golden examples: compare with its training data or with an earlier window")
    rows = Rows(fields)
    count = 0
    try:
        document = decode_golden(registry.golden(record.golden_sha256), source="its golden answers")
        inputs = _golden_inputs(registry, record)
    except (ObjectMissing, InvalidRecord, InvalidArchive) as exc:
        raise NoReference(f"its golden examples cannot be read: {exc}") from exc
    answers = {example.input_sha256: example.answer for example in document.examples}
    for each in inputs:
        found: dict[str, Sequence[Any]] = {}
        if parts := parts_of(each.data, each.content_type):
            found["input"] = parts
        answer = answers.get(each.sha256)
        if answer is not None and answer.status < 400 and (parts := _parts_of_answer(answer)):
            found["output"] = parts
        rows.add(found)
        count += 1
    if count < _ROWS_MIN:
        raise NoReference(
            f"it has {count} golden examples, and fewer than {_ROWS_MIN} say too little of what is usual: compare with "
            "its training data or with an earlier window"
        )
    return rows.summarize()


def window_reference(window: Window, rule: DriftRule) -> Mapping[str, FeatureSummary]:
    """Return a summary of an earlier window.

    Raises:
        NoReference: It holds too few predictions with bodies.
    """
    if window.with_bodies < rule.min_count:
        raise NoReference(
            f"the window that ended {rule.against} before has {window.with_bodies} predictions with bodies, and "
            f"min_count is {rule.min_count}: choose another one, or wait"
        )
    return window.rows.summarize()


def _golden_inputs(registry: Registry, record: VersionRecord) -> Sequence[ExampleInput]:
    """Return the golden inputs in a version's archive, of which only the directory and these are read."""
    try:
        with registry.open_archive(record.archive) as file, zipfile.ZipFile(file) as archive:
            return examples_in(archive, record.archive.kind)
    except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError) as exc:
        raise InvalidArchive(f"its archive cannot be read: {clip(str(exc), 200)}") from exc


def _parts_of_answer(answer: GoldenAnswer) -> list[Any] | None:
    if answer.kind == "json":
        return parts_of(json.dumps(answer.value).encode(), "application/json")
    return [answer.value] if answer.kind == "text" else None
