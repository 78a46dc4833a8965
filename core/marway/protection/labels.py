"""What a protected label asks for before it moves, as it is stored."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import Field

from marway.errors import InvalidInput, clip
from marway.stored import Extensible, Frozen

__all__ = [
    "APPROVALS_MAX",
    "FREEZES_MAX",
    "REQUIREMENTS",
    "Approval",
    "Protection",
    "ProtectionChange",
    "ProtectionState",
    "Requirement",
    "VersionApprovals",
    "check_requirement",
    "same_person",
]

Requirement = Literal["pod", "replay", "engines", "contracts"]
REQUIREMENTS: Final[tuple[Requirement, ...]] = ("pod", "replay", "engines", "contracts")
"""Proofs that a label may ask for: of a pod, of a replay, of pods of both engines, of consumers' contracts."""
APPROVALS_MAX: Final = 20
"""Most people that a label may ask for."""
FREEZES_MAX: Final = 20


def check_requirement(text: str) -> Requirement:
    """Return the proof that a label may ask for with this name, else raise `InvalidInput`."""
    for known in REQUIREMENTS:
        if text == known:
            return known
    raise InvalidInput(f"{clip(text, 60)!r} is no proof that can be asked for: there are {', '.join(REQUIREMENTS)}")


def same_person(one: str, other: str) -> bool:
    """Return whether two names of the history stand for one person: `ana@laptop` is `ana@desk`, and `Ana`."""
    return one.partition("@")[0].casefold() == other.partition("@")[0].casefold()


class Approval(Extensible):
    """That somebody agrees to a label's move to a version, or asked for that: bound to the bytes, not to the name."""

    version: str
    archive_sha256: str
    by: str
    at: datetime
    note: str | None = None


class Protection(Extensible):
    """What a label asks for before it moves, in `ModelState.protection`.

    Attributes:
        approvals: How many people have to agree: others than who published the version and who moves the label.
        require: Proofs that have to be there.
        freeze: When it does not move.
        by, at, note: Who protected it last, when and why.
        approved: Who agreed to which version. What is agreed to a version ends when the label moves there.
        asked: Of which versions it was asked to agree; each once until the label moves there.
    """

    approvals: Annotated[int, Field(ge=0, le=APPROVALS_MAX)] = 0
    # Read as they are: a requirement or a window that only a newer Marway knows must hold the label, not be dropped.
    require: tuple[str, ...] = ()
    freeze: Annotated[tuple[str, ...], Field(max_length=FREEZES_MAX)] = ()
    by: str
    at: datetime
    note: str | None = None
    approved: tuple[Approval, ...] = ()
    asked: tuple[Approval, ...] = ()

    def without(self, version: str) -> Protection:
        """Return it with nothing agreed or asked of a version."""
        return self.model_copy(
            update={
                name: tuple(each for each in getattr(self, name) if each.version != version)
                for name in ("approved", "asked")
            }
        )


class ProtectionChange(Frozen):
    """What one change did to a label's protection, in its history entry.

    Such an entry is of the kind `label`, from where the label is to there: the label stays. So readers from before
    labels were protected take it for a release that changes nothing.

    Attributes:
        action: What was done.
        version: Which version was agreed to, or asked for.
        approvals, require, freeze: What the label asks for from then on, where that was changed.
    """

    action: Literal["protect", "off", "ask", "approve", "withdraw"]
    version: str | None = None
    approvals: int | None = None
    require: tuple[str, ...] | None = None
    freeze: tuple[str, ...] | None = None


class VersionApprovals(NamedTuple):
    """What was asked and agreed of one version."""

    version: str
    asked_by: tuple[str, ...]
    approved_by: tuple[str, ...]


class ProtectionState(NamedTuple):
    """How a label is protected now; None where it is not."""

    model: str
    label: str
    version: str | None
    protection: Protection | None

    @property
    def versions(self) -> list[VersionApprovals]:
        """What was asked and agreed, by version."""
        if self.protection is None:
            return []
        asked, approved = self.protection.asked, self.protection.approved
        names = sorted({each.version for each in (*asked, *approved)})
        return [
            VersionApprovals(
                name,
                tuple(each.by for each in asked if each.version == name),
                tuple(each.by for each in approved if each.version == name),
            )
            for name in names
        ]

    def document(self) -> dict[str, Any]:
        """Return it as JSON, as programs get it."""
        found = self.protection
        asked = found.model_dump(mode="json") if found is not None else {}
        return {
            "model": self.model,
            "label": self.label,
            "version": self.version,
            "protected": found is not None,
            "approvals": asked.get("approvals", 0),
            "require": asked.get("require", []),
            "freeze": asked.get("freeze", []),
            **{name: asked.get(name) for name in ("by", "at", "note")},
            "versions": [each._asdict() for each in self.versions],
        }
