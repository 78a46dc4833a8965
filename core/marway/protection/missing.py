"""What a move of a protected label lacks, and how each of it is got."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final, NamedTuple

from marway.errors import InvalidInput, LabelProtected, clip
from marway.proofs.replays import REPLAY_LIMITS
from marway.protection.contracts import consumers_of, contracts_for
from marway.protection.freezes import Freeze
from marway.protection.labels import Approval, Protection, same_person
from marway.records import ModelState, Proof, VersionRecord

__all__ = ["ApprovalsMissing", "contracts_unproved", "counted", "engines_missing", "refuse"]

_REPLAYED_MIN: Final = 100
"""Inputs that a replay has to compare: of fewer, one in a hundred that fails may not be among them."""
_ENGINES: Final = ("native", "torchserve")


class ApprovalsMissing(LabelProtected):
    """Among what is missing is sign-off, which others have to be asked for."""


class _Missing(NamedTuple):
    """One thing that is missing: sign-off, a time at which nothing is frozen, or a proof; and how it is got."""

    what: str
    text: str


def contracts_unproved(state: ModelState, proofs: Iterable[Proof], label: str | None) -> list[str]:
    """Return the contracts of a label, or all for None, of which no proof says that the version keeps them."""
    wanted = contracts_for(state.contracts, label)
    kept = {digest for proof in proofs for digest in proof.contracts} if wanted else set()
    return [key for key, ref in wanted.items() if ref.sha256 not in kept]


def engines_missing(protection: Protection, record: VersionRecord, proofs: Iterable[Proof]) -> list[str]:
    """Return the engines of which a label asks for a proof that is not there."""
    if "engines" not in protection.require or record.backend != "torchserve":
        return []
    servers = _servers(record, proofs)
    return [each for each in _ENGINES if each not in servers]


def refuse(
    state: ModelState,
    record: VersionRecord,
    label: str,
    protection: Protection,
    *,
    movers: Collection[str],
    base: VersionRecord | None,
    proofs: Sequence[Proof],
    now: Callable[[], datetime],
    made: Collection[str] = (),
) -> tuple[str, ...]:
    """Return who agreed to a move, or refuse it with all that is missing.

    Args:
        state: The model's.
        record: The version that the label is to move to.
        label: Which label.
        protection: What it asks for.
        movers: Who moves it: what they agree to does not count.
        base: Where the label is.
        proofs: What is proved of the version's bytes.
        now: Says the time; asked where there are freeze windows.
        made: Proofs that will be there by then.

    Raises:
        LabelProtected: Something is missing; `ApprovalsMissing` where sign-off is.
    """
    approved = counted(protection, record, movers)
    kinds = (kind for kind in protection.require if kind not in made)
    missing = [
        *_approvals(protection, record, label, approved, movers),
        *(found for kind in kinds if (found := _proof_missing(kind, state, record, base, label, proofs)) is not None),
        *(_frozen(protection, record.name, label, now()) if protection.freeze else ()),
    ]
    if not missing:
        return tuple(each.by for each in approved)
    kind = ApprovalsMissing if missing[0].what == "approvals" else LabelProtected
    listed = "; ".join(f"({number}) {each.text}" for number, each in enumerate(missing, 1))
    raise kind(
        f"{record.name} {label} is protected, and {record.version} may not take it yet; missing: {listed}; "
        + (f"{label} stays at {base.version}" if base is not None else f"{label} is not set"),
        model=record.name,
        version=record.version,
    )


def counted(protection: Protection, record: VersionRecord, movers: Collection[str]) -> list[Approval]:
    """Return the approvals that count: of these bytes, by others than who published them and who moves the label."""
    return [
        each
        for each in protection.approved
        if each.archive_sha256 == record.archive.sha256
        and each.version == record.version
        and not any(same_person(each.by, one) for one in (record.publisher, *movers))
    ]


def _approvals(
    protection: Protection, record: VersionRecord, label: str, approved: Sequence[Approval], movers: Collection[str]
) -> Iterator[_Missing]:
    if len(approved) >= protection.approvals:
        return
    there = f" ({', '.join(clip(each.by, 60) for each in approved)})" if approved else ""
    own = dict.fromkeys(clip(each, 60) for each in (record.publisher, *movers))
    yield _Missing(
        "approvals",
        f"{len(approved)} of {protection.approvals} approvals{there}: others than {' and '.join(own)} run "
        f"`marway approve {record.name} {record.version} --label {label}`",
    )


def _proof_missing(
    kind: str,
    state: ModelState,
    record: VersionRecord,
    base: VersionRecord | None,
    label: str,
    proofs: Sequence[Proof],
) -> _Missing | None:
    name, version = record.name, record.version
    servers = _servers(record, proofs)
    if kind == "pod" or (kind == "engines" and record.backend != "torchserve"):
        # What is for another kind of server is served by that kind alone: a pod of it is all its engines.
        if servers:
            return None
        return _Missing(kind, f"a proof by a pod: `marway load {name}/{version} --prove`")
    if kind == "engines":
        if not (left := [each for each in _ENGINES if each not in servers]):
            return None
        return _Missing(
            kind,
            f"a proof by a pod of each engine, still of {' and '.join(left)}: `marway load {name}/{version} --prove "
            "--pod POD`, POD being one of that engine (`marway pods`)",
        )
    if kind == "contracts":
        if not (unproved := contracts_unproved(state, proofs, label)):
            return None
        consumers = ", ".join(consumers_of(unproved))
        return _Missing(kind, f"contracts of {consumers} kept on a pod: `marway contract check {name} {version}`")
    if kind == "replay":
        if any(_replayed(proof, base) for proof in proofs):
            return None
        return _Missing(
            kind,
            f"a replay of {_REPLAYED_MIN} kept inputs or more against {base.version if base else 'another version'}, "
            f"within the usual limits: `marway replay {name} --candidate {version} --last 1000`",
        )
    return _Missing(kind, f"{clip(kind, 60)}, a proof that only a newer Marway knows: move the label with that")


def _servers(record: VersionRecord, proofs: Iterable[Proof]) -> set[str]:
    """Return the kinds of servers whose pods have proved a version."""
    return {each.server for each in proofs if each.kind == "pod" and each.golden_sha256 == record.golden_sha256}


def _replayed(proof: Proof, base: VersionRecord | None) -> bool:
    """Return whether a proof is a replay that counts: large enough, and as strict as usual."""
    replay = proof.replay
    if replay is None or not replay.passed or replay.counts.compared < _REPLAYED_MIN:
        return False
    strict = all(replay.limits.get(guard, math.inf) <= limit for guard, limit in REPLAY_LIMITS.items())
    return strict and (base is None or (replay.model, replay.base) == (base.name, base.version))


def _frozen(protection: Protection, model: str, label: str, now: datetime) -> Iterator[_Missing]:
    for text in protection.freeze:
        try:
            ends = Freeze.parsed(text).until(now)
        except InvalidInput as exc:  # written by a newer Marway, or where more time zones are known
            yield _Missing("freeze", f"a freeze window that can be read here: {exc.message}")
            continue
        if ends is not None:
            yield _Missing(
                "freeze",
                f"a time at which nothing is frozen: {text} lasts until {ends:%a %Y-%m-%d %H:%M %Z}; to move it "
                f"sooner, `marway protect {model} --label {label} --freeze none`",
            )
