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
from marway.errors import InvalidArchive, LoadFailed, MarwayError, NotFound, VersionConflict
from marway.records import Signature, VersionRecord
from marway.registry import Registry
from marway_archiver.adopt.found import Found, FoundModel
from marway_archiver.adopt.report import Adopted, Outcome, Report
from marway_archiver.adopt.stored import differences_from_stored, examples_as_before
from marway_archiver.archives import check_archive, repack
from marway_archiver.bundles.packing import pack_bundle
from marway_archiver.proving.examples import Example, encode_all
from marway_archiver.publishing.bundles import UNPROVED_BUNDLE
from marway_archiver.publishing.publish import publish_archive
from marway_archiver.publishing.register import UNPROVED, label_move
from marway_archiver.verify import golden_beside

__all__ = ["Terms", "adopt", "as_planned", "planned"]

_UNPROVED: Final = (
    "it has no golden examples: nothing shows that it answers as before; --from URL, or --requests FILE of its clients "
    "with answers, gives some"
)
"""In the place of what `marway publish` says, which has other flags."""


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
        replace(each, outcome="planned" if each.outcome == "published" else each.outcome, record=None)
        for each in report.adopted
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
    outcome: Outcome = "refused"
    try:
        before = _record(registry, model)
        with _collected(messages), tempfile.TemporaryDirectory(prefix="marway-adopt-") as scratch:
            examples = terms.examples.get(model.reference, ())
            if before is not None:
                examples = examples_as_before(registry, before, examples, messages)
            try:
                record, repacked = _published(model, registry, terms, examples, Path(scratch))
            except (InvalidArchive, LoadFailed) as exc:
                if not examples or before is not None:
                    raise
                # It may fail without them as well: then that is what is said.
                record, repacked = _published(model, registry, terms, (), Path(scratch))
                messages.append(
                    f"it has no golden examples, as it does not answer its clients' requests: {exc.message}"
                )
            outcome = "published" if before is None else "known"
            labels = tuple(_labelled(model, record, registry, terms, note, messages))
    except VersionConflict as exc:
        how = "give its archive" if model.directory is None else "give it with --version"
        problem = f"{exc.message}; where the old server has another model now, {how} a version of its own"
        return Adopted(model, outcome, record, repacked, messages=tuple(messages), problem=problem)
    except MarwayError as exc:
        return Adopted(model, outcome, record, repacked, messages=tuple(messages), problem=exc.message)
    if before is not None:
        messages += differences_from_stored(model, record)
    return Adopted(model, outcome, record, repacked, labels, tuple(dict.fromkeys(messages)))


def _published(
    model: FoundModel, registry: Registry, terms: Terms, examples: Sequence[Example], scratch: Path
) -> tuple[VersionRecord, str | None]:
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        path, repacked = _packed(model, Path(directory), examples)
        record, _ = publish_archive(
            path,
            registry=registry,
            record=_facts(model, terms),
            lock=terms.lock or model.directory is not None,
            lock_for=() if model.directory is not None else terms.lock_for,
            tolerance=terms.tolerance,
        )
        return record, repacked


def _record(registry: Registry, model: FoundModel) -> VersionRecord | None:
    try:
        return registry.record(model.name, model.version)
    except NotFound:
        return None


def _facts(model: FoundModel, terms: Terms) -> dict[str, Any]:
    serving = model.serving.model_dump(mode="json", exclude_unset=True)
    signature = terms.signatures.get(model.reference)
    text = {} if signature is None else {"signature": signature.model_dump(mode="json")}
    return {"backend": model.backend, "serving": serving, **text}


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


@contextmanager
def _collected(messages: list[str]) -> Iterator[None]:
    """Collect the archiver's warnings, which are about one version each, in place of showing them."""

    class Collecting(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = str(getattr(record, "warning", record.getMessage()))
            messages.append(_UNPROVED if text in (UNPROVED, UNPROVED_BUNDLE) else text)

    logger = logging.getLogger("marway_archiver")
    handler, before = Collecting(), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before
