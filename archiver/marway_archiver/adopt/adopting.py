"""Takes over what was found: each version published once, its labels set where nobody has set them otherwise."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from marway.answers.golden import encode_examples
from marway.errors import MarwayError, NotFound, VersionConflict
from marway.records import Signature, VersionRecord
from marway.registry import Registry
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.adopt.report import Adopted, Fate, Report
from marway_archiver.adopt.stored import stored_examples
from marway_archiver.archives import check_archive, repack
from marway_archiver.bundles.packing import pack_bundle
from marway_archiver.proving.examples import Example, encode_all
from marway_archiver.publishing.publish import publish_archive
from marway_archiver.publishing.register import label_move
from marway_archiver.verify import golden_beside

__all__ = ["Terms", "adopt", "as_planned", "planned"]

_COMPARED: Final = (
    "min_workers",
    "max_workers",
    "max_batch_rows",
    "load_timeout_s",
    "predict_timeout_s",
    "protocol",
    "pods",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """How versions are published.

    Attributes:
        create_registry, lock, lock_for, gateway: As `marway_archiver.publish` takes them.
        examples: Golden examples by `NAME/VERSION`.
        signatures: Likewise, the tensors that clients of v2 know, where those of an archive were asked for.
        tolerance: How far numbers of equal answers may lie apart, relative and absolute; None for the default.
    """

    create_registry: bool = False
    lock: bool = True
    lock_for: tuple[str, ...] = ()
    gateway: str | None = None
    examples: Mapping[str, Sequence[Example]] = field(default_factory=dict)
    signatures: Mapping[str, Signature] = field(default_factory=dict)
    tolerance: float | None = None


def planned(found: Found) -> Report:
    """Return the report of a dry run: what would be published."""
    return Report(
        found,
        tuple(
            Adopted(each, "planned" if each.problem is None else "refused", labels=each.labels, problem=each.problem)
            for each in found.models
        ),
    )


def as_planned(report: Report) -> Report:
    """Return what was tried in a registry that goes away as what would be done."""
    tried = (
        replace(each, fate="planned" if each.fate == "published" else each.fate, record=None) for each in report.adopted
    )
    return replace(report, adopted=tuple(tried))


def adopt(
    found: Found, registry: Registry, terms: Terms, *, step: Callable[[FoundModel], None] = lambda _: None
) -> Report:
    """Publish what was found; again, it publishes nothing new. What fails is told of, and does not keep others from it.

    Args:
        found: What a source holds.
        registry: Where to.
        terms: How.
        step: Told which version is next.

    Raises:
        RegistryUnavailable: There is no registry, or it cannot be written.
    """
    if terms.create_registry:
        registry.create()
    registry.check_there()
    adopted: list[Adopted] = []
    for each in found.models:
        if each.problem is not None:
            adopted.append(Adopted(each, "refused", problem=each.problem))
            continue
        step(each)
        adopted.append(_one(each, registry, terms, f"adopted from {found.kind} {found.source}"))
    return Report(found, tuple(adopted))


def _one(model: FoundModel, registry: Registry, terms: Terms, note: str) -> Adopted:
    messages: list[str] = []
    repacked: str | None = None
    record: VersionRecord | None = None
    fate: Fate = "refused"
    try:
        before = _record(registry, model)
        with _collected(messages), tempfile.TemporaryDirectory(prefix="marway-adopt-") as scratch:
            examples = terms.examples.get(model.reference, ())
            if before is not None:
                examples = _as_before(registry, before, examples, messages)
            path, repacked = _packed(model, Path(scratch), examples)
            record, _ = publish_archive(
                path,
                registry=registry,
                record=_facts(model, terms),
                lock=terms.lock or model.directory is not None,
                lock_for=() if model.directory is not None else terms.lock_for,
                tolerance=terms.tolerance,
            )
            fate = "published" if before is None else "known"
            labels = tuple(_labelled(model, record, registry, terms, note, messages))
    except VersionConflict as exc:
        how = "give its archive" if model.directory is None else "give it with --version"
        problem = f"{exc.message}; where the old server has another model now, {how} a version of its own"
        return Adopted(model, fate, record, repacked, messages=tuple(messages), problem=problem)
    except MarwayError as exc:
        return Adopted(model, fate, record, repacked, messages=tuple(messages), problem=exc.message)
    if before is not None:
        messages += _otherwise(model, record)
    return Adopted(model, fate, record, repacked, labels, tuple(dict.fromkeys(messages)))


def _record(registry: Registry, model: FoundModel) -> VersionRecord | None:
    try:
        return registry.record(model.name, model.version)
    except NotFound:
        return None


def _facts(model: FoundModel, terms: Terms) -> dict[str, Any]:
    serving = model.serving.model_dump(mode="json", exclude_unset=True)
    signature = terms.signatures.get(model.reference)
    said = {} if signature is None else {"signature": signature.model_dump(mode="json")}
    return {"backend": model.backend, "serving": serving, **said}


def _as_before(
    registry: Registry, before: VersionRecord, examples: Sequence[Example], messages: list[str]
) -> Sequence[Example]:
    """Return the golden examples that a version has, whatever others there are now: it never changes."""
    stored = stored_examples(registry, before)
    if examples and encode_all(examples)[1] != encode_all(stored)[1]:
        messages.append(
            f"it was published before with {len(stored)} golden example{'s' * (len(stored) != 1)}, and keeps "
            "these: another version takes others"
        )
    return stored


def _packed(model: FoundModel, scratch: Path, examples: Sequence[Example]) -> tuple[Path, str | None]:
    """Return the archive to publish, and why it is another than the one that was found."""
    if model.directory is not None:
        packed = pack_bundle(
            model_name=model.name,
            version=model.version,
            backend=model.backend,
            directory=model.directory,
            leave_out=model.leave_out,
            add_files=model.add_files,
            export_path=scratch,
            examples=examples,
            golden_file=golden_beside(scratch / model.name),
        )
        return packed.path, None
    assert model.archive is not None
    info = check_archive(model.archive)
    why = "its bytes were not canonical" if not info.canonical else None
    _, inputs = encode_all(() if info.examples else examples)  # those of its own are part of its bytes
    if info.model != (model.name, model.version):
        why = f"its manifest calls it {info.model[0]} {info.model[1]}"
    elif inputs:
        why = "golden examples were put into it"
    elif why is None:
        return model.archive, None
    packed_mar = repack(
        model.archive, scratch, model_name=model.name, version=model.version, add_files=encode_examples(inputs)
    )
    return packed_mar.path, why


def _labelled(
    model: FoundModel, record: VersionRecord, registry: Registry, terms: Terms, note: str, messages: list[str]
) -> Iterator[str]:
    """Set the labels that point nowhere yet; yield those that point at the version now."""
    labels = registry.state(record.name).labels
    for label in model.labels:
        there = labels.get(label)
        if there is None:
            move = label_move(label, note=note, gateway=terms.gateway, force=False)
            assert move is not None
            move(registry, record)
        elif there != record.version:
            messages.append(
                f"{label} of {record.name} points at {there} and stays there: `marway release {record.name} "
                f"{record.version} --label {label}` moves it"
            )
            continue
        yield label


def _otherwise(model: FoundModel, record: VersionRecord) -> Iterator[str]:
    """Yield what a version that was published before is served otherwise with than the source now says."""
    for name in _COMPARED:
        if name in model.serving.model_fields_set and getattr(model.serving, name) != getattr(record.serving, name):
            yield (
                f"{record.name} {record.version} was published before with {name} {getattr(record.serving, name)}, and "
                f"the source says {getattr(model.serving, name)}: `marway serving` changes that"
            )


@contextmanager
def _collected(messages: list[str]) -> Iterator[None]:
    """Collect the archiver's warnings, which are about one version each, in place of showing them."""

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(str(getattr(record, "warning", record.getMessage())))

    logger = logging.getLogger("marway_archiver")
    handler, before = Collecting(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
