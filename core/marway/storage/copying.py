"""Versions from one registry into another: as they are, with what is proved about them, each whole or not at all.

A version goes as a publish does, so that a reader of the other registry never sees one that is not there to its end,
and one that is cut off goes on when it is asked for again. What is there already is not sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from marway.errors import InvalidInput, InvalidRecord, NotFound
from marway.objects import ObjectExists, ObjectMissing, Progress
from marway.proofs.origins import CopyOrigin
from marway.records import Proof, VersionRecord, overrides
from marway.refs import Reference
from marway.registry import Registry, keys
from marway.registry.encoding import decode
from marway.storage.fetching import fetched
from marway.storage.planning import Need, Plan, label_needed

__all__ = ["Choices", "CopiedVersion", "CopyReport", "copy_plan", "origin_of"]

What = Literal["copied", "there", "deleted there"]


@dataclass(frozen=True, slots=True)
class Choices:
    """What is copied beside versions, their golden answers and proofs.

    Attributes:
        labels: The labels that are set to the version that was asked for; there must be one of each model.
        all_labels: Whether each label of the registry that is read is set, whose version is copied.
        contracts: Whether contracts of consumers are.
        protection: Whether what labels ask for before they move is.
        serving: Whether overrides of serving settings are.
        force: Whether labels move without a pod's proof; the history says so.
    """

    labels: tuple[str, ...] = ()
    all_labels: bool = False
    contracts: bool = False
    protection: bool = False
    serving: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class CopiedVersion:
    """What became of a version: copied, there before, or left out, as it was deleted there."""

    name: str
    version: str
    what: What
    bytes: int
    proofs: int


@dataclass(slots=True)
class CopyReport:
    """What was done.

    Attributes:
        versions: Each, in the order in which they were copied.
        labels: Labels that were set, as ``MODEL LABEL → VERSION``.
        changed: What else was set, a line each.
        missing: What versions name and the registry does not have now.
        left: What the model has beside, and was not asked for.
    """

    versions: list[CopiedVersion] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)


def origin_of(source: Registry, *, file: Path | None = None) -> CopyOrigin:
    """Return what the history says of where a version comes from."""
    identity = source.identity()
    return CopyOrigin(
        registry=source.url,
        registry_id=None if identity is None else identity.id,
        file=None if file is None else file.name,
    )


def copy_plan(
    source: Registry,
    target: Registry,
    plan: Plan,
    *,
    origin: CopyOrigin,
    choices: Choices = Choices(),
    note: str | None = None,
    by: str,
    progress: Callable[[VersionRecord], Progress | None] = lambda _record: None,
) -> CopyReport:
    """Copy what is planned, and say what was done. Blocks; nothing of ``source`` is changed.

    Args:
        source: Where the versions are.
        target: Where they go; it must be there.
        plan: Which.
        origin: What the history of ``target`` says of where they come from.
        choices: What goes along.
        note: Why, for the history.
        by: Who, for the history.
        progress: Gives for each version what is told of the bytes of its archive that were sent.

    Raises:
        VersionConflict: A version is there with other bytes, or is named and deleted there, or its name is taken.
        InvalidGraph: A graph names what ``target`` does not have.
        ProofMissing, LabelProtected, StateConflict: A label cannot be set; the versions are there by then.
        ArchiveCorrupt, InvalidRecord: ``source`` is damaged.
    """
    _check_labels(plan, choices)
    work = _Copying(source, target, plan, origin, choices, note, by)
    for record in plan.records:
        work.version(record, progress(record))
    for name in plan.models:
        work.model(name)
    work.report.missing = [str(need) for needs in plan.needs.values() for need in needs if not work.has(need)]
    return work.report


def _check_labels(plan: Plan, choices: Choices) -> None:
    for name in plan.models if choices.labels else ():
        asked = sorted(version for model, version in plan.asked if model == name)
        if len(asked) != 1:
            raise InvalidInput(
                f"--label sets a label to one version, and {len(asked)} of {name} are copied ({', '.join(asked)}): "
                f"name one, such as {name}/{asked[0]}, or take the labels as they are (--labels)",
                model=name,
            )


@dataclass(slots=True)
class _Copying:
    source: Registry
    target: Registry
    plan: Plan
    origin: CopyOrigin
    choices: Choices
    note: str | None
    by: str
    report: CopyReport = field(default_factory=CopyReport)

    def version(self, record: VersionRecord, progress: Progress | None) -> None:
        key = record.name, record.version
        if record.version in self.target.state(record.name).tombstones and key not in self.plan.named:
            self.report.versions.append(CopiedVersion(*key, "deleted there", 0, 0))
            return
        for need in self.plan.needs[key]:
            self._needed_label(need)
        what: What = "there"
        if not self._is_whole(record):
            self._publish(record, progress)
            self.target.note_copy(record.name, record.version, self.origin, note=self.note, by=self.by)
            what = "copied"
        size = record.archive.size_bytes if what == "copied" else 0
        self.report.versions.append(CopiedVersion(*key, what, size, self._prove(record)))

    def _is_whole(self, record: VersionRecord) -> bool:
        """Return whether a version is published there, with all that it is made of."""
        try:
            stored = self.target.resolve(Reference(record.name, record.version))
        except NotFound:
            return False
        sizes = (self.target.store.size(each) for each in keys.objects_of(stored))
        return stored.archive == record.archive and all(size is not None for size in sizes)

    def _publish(self, record: VersionRecord, progress: Progress | None) -> None:
        golden = None if record.golden_sha256 is None else self._golden(record, record.golden_sha256)
        wheels: dict[str, Path] = {}
        with contextlib.ExitStack() as files:
            for wheel in {each.sha256 for lock in record.environments for each in lock.wheels}:
                if self.target.wheel_bytes(wheel) is None:
                    found = fetched(self.source.store, keys.wheel_key(wheel), sha256=wheel)
                    wheels[wheel] = files.enter_context(found).path
            key = keys.archive_key(record.archive)
            archive = files.enter_context(fetched(self.source.store, key, sha256=record.archive.sha256))
            self.target.publish(record, archive.path, golden=golden, wheels=wheels, progress=progress)

    def _golden(self, record: VersionRecord, sha256: str) -> bytes:
        try:
            return self.source.golden(sha256)
        except ObjectMissing as exc:
            raise InvalidRecord(
                f"the golden answers of {record.name} {record.version} are not in {self.source.url}: publish it again "
                "there, with them",
                model=record.name,
                version=record.version,
            ) from exc

    def _prove(self, record: VersionRecord) -> int:
        """Copy what is proved of a version under its own names, so that the same again is found; return how much."""
        digest, copied = record.archive.sha256, 0
        for prefix in (keys.proofs_prefix(digest), keys.checks_prefix(digest)):
            there = set(self.target.store.keys(prefix))
            for key in self.source.store.keys(prefix):
                if key in there:
                    continue
                with contextlib.suppress(ObjectMissing, ObjectExists, InvalidRecord):  # a damaged one proves nothing
                    data = self.source.store.get(key).data
                    if decode(Proof, data, source=key).archive_sha256 == digest:
                        self.target.store.create(key, data)
                        copied += 1
        return copied

    def has(self, need: Need) -> bool:
        try:
            self.target.resolve(Reference(need.model, need.selector))
        except NotFound:
            return False
        return True

    def _needed_label(self, need: Need) -> None:
        """Set a label that a graph or a fallback names, where there is none; one that is there stays."""
        if not label_needed(need) or need.version is None or self.has(need):
            return
        if need.version in self.plan.versions(need.model):
            self._set_label(need.model, need.selector, need.version)

    def model(self, name: str) -> None:
        """Set what was chosen of a model; what is so already is left, and not said again in the history."""
        state, versions = self.source.state(name), set(self.plan.versions(name))
        for label, version in sorted(state.labels.items()):
            if self.choices.all_labels and version in versions:
                self._set_label(name, label, version)
        for label in self.choices.labels:
            self._set_label(name, label, next(version for model, version in self.plan.asked if model == name))
        self._contracts(name)
        self._protection(name)
        self._serving(name, versions)

    def _set_label(self, name: str, label: str, version: str) -> None:
        there = self.target.state(name)
        if there.labels.get(label) == version or version in there.tombstones:
            return
        self.target.release(
            name,
            version,
            label=label,
            require_proof=True,
            unproved_first=True,
            forced=self.choices.force,
            note=self.note or f"copied from {self.origin}"[:1000],
            by=self.by,
        )
        self.report.labels.append(f"{name} {label} → {version}")

    def _contracts(self, name: str) -> None:
        there = self.target.state(name).contracts
        found = self.source.contracts(name)
        if found and not self.choices.contracts:
            self.report.left.append(f"{len(found)} contracts of consumers of {name} (--contracts)")
            return
        for contract in found:
            known = there.get(contract.key)
            if known is None or (known.sha256, known.labels) != (contract.sha256, contract.labels):
                self.target.add_contract(name, contract)
                self.report.changed.append(f"contract {contract.key} of {name}")

    def _protection(self, name: str) -> None:
        for label, wanted in sorted(self.source.state(name).protection.items()):
            if not self.choices.protection:
                self.report.left.append(f"what {name} {label} asks for before it moves (--protection)")
                continue
            known = self.target.state(name).protection.get(label)
            asks = wanted.approvals, wanted.require, wanted.freeze
            if known is not None and (known.approvals, known.require, known.freeze) == asks:
                continue
            self.target.protect(
                name, label=label, approvals=asks[0], require=asks[1], freeze=asks[2], note=self.note, by=self.by
            )
            self.report.changed.append(f"what {name} {label} asks for before it moves")

    def _serving(self, name: str, versions: set[str]) -> None:
        there = overrides(self.target.state(name).serving)
        for version, fields in overrides(self.source.state(name).serving).items():
            if version != "*" and version not in versions:
                continue
            whose = f"serving settings of {name}, {'all versions' if version == '*' else version}"
            if not self.choices.serving:
                self.report.left.append(f"{whose} (--serving)")
                continue
            changed = {field: value for field, value in fields.items() if there.get(version, {}).get(field) != value}
            if changed:
                self.target.set_serving(name, version=version, set_fields=changed, note=self.note, by=self.by)
                self.report.changed.append(whose)
