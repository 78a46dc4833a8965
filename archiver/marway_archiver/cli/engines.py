"""What `marway verify --engine` and `marway compare` share: a registry of their own, and how they show what came."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.text import Text

from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, Tolerance
from marway.archives.entries import shown
from marway.records import VersionRecord
from marway.registry import Registry, open_registry
from marway.serving import ServingSettings
from marway_archiver.archives import repack
from marway_archiver.atomic_output import signals_raise
from marway_archiver.packing import PackedArchive
from marway_archiver.proving.examples import input_line
from marway_archiver.proving.proof import PackProof, document_of
from marway_archiver.publishing.facts import RecordFacts
from marway_archiver.publishing.locking.lock import LockOptions
from marway_archiver.publishing.register import store
from marway_archiver.verify import Verification
from marway_ops.engines.trial import Trial
from marway_ops.shell.output import print_table, warn

__all__ = [
    "BOTH",
    "Room",
    "answers_document",
    "different",
    "opened_room",
    "print_answers",
    "shown_steps",
    "store_verified",
]

BOTH: Final = ("torchserve", "native")
"""The engines that serve TorchServe's archives."""


@dataclass(frozen=True, slots=True)
class Room:
    """A directory that pods may keep what they need in, and an empty registry."""

    directory: Path
    registry: Registry


@contextmanager
def opened_room() -> Iterator[Room]:
    """Give a room that is taken away at the end, also when a signal ends this process."""
    with signals_raise(), tempfile.TemporaryDirectory(prefix="marway-engines-") as name:
        directory = Path(name)
        yield Room(directory, open_registry((directory / "registry").as_uri(), create=True))


def store_verified(room: Room, found: Verification, *, tolerance: Tolerance | None, timeout_s: float) -> VersionRecord:
    """Store an archive that was verified as the version that pods are to prove.

    Its golden answers are those that it was compared with; where there are none, those of the run.
    """
    info, run = found.archive, found.run
    assert info.manifest is not None
    packed = PackedArchive(info.path, info.sha256, info.size_bytes, info.manifest, config=info.config)
    if not info.canonical:  # as a publish does it
        packed = replace(repack(info.path, room.directory), warnings=(), config=info.config)
    golden = found.golden
    if golden is None and info.examples:
        answers, reason = run.answers, run.batch_reason
        golden = document_of(info.examples, answers, run, tolerance=DEFAULT_TOLERANCE, batch_reason=reason)
    if golden is not None:
        golden = golden.model_copy(update={"archive_sha256": packed.sha256, "tolerance": tolerance or golden.tolerance})
        proof = PackProof(packed.sha256, golden.sha256, run.versions, run.duration_s, run.streaming)
        packed = replace(packed, golden=golden, proof=proof)
    serving = ServingSettings(load_timeout_s=timeout_s, predict_timeout_s=timeout_s)
    return store(
        packed,
        RecordFacts(serving=serving),
        room.registry,
        create_registry=False,
        lock=LockOptions(),
        release=None,
        progress=None,
    )


@contextmanager
def shown_steps() -> Iterator[Callable[[str], None]]:
    """Give what is told of each step, and shows it on a terminal while it lasts."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status("") as status:
        yield lambda text: status.update(Text(f"{text} …"))


def print_answers(trial: Trial, examples: Sequence[ExampleInput]) -> None:
    """Print what each engine said to each example, and what was proved in which time."""
    engines = [*trial.proofs]
    for name, proof in trial.proofs.items():
        if proof.failure is not None:
            warn(f"{name}: nothing could be proved: {proof.failure}")
    columns = ["example", "input"]
    for name in engines:
        columns += [f"{name} ms", name]
    if len(engines) > 1:
        columns.append(f"{engines[1]} and {engines[0]}")
    if examples:
        print_table(columns, [_row(trial, number, each) for number, each in enumerate(examples, 1)])


def _row(trial: Trial, number: int, example: ExampleInput) -> list[str]:
    cells = [str(number), shown(input_line(example))[1:-1]]
    for proof in trial.proofs.values():
        if proof.failure is not None:
            cells += ["-", "-"]
            continue
        took = f"{proof.answers[number - 1].seconds * 1000:9.2f}"
        cells += [took, proof.differences.get(number, "as golden" if proof.golden else "ok")]
    if len(trial.proofs) > 1:
        asked = all(proof.failure is None for proof in trial.proofs.values())
        cells.append(trial.differences.get(number, "equal" if asked else "-"))
    return cells


def answers_document(trial: Trial) -> dict[str, Any]:
    """Return the same as JSON: `engines`, and `differences` between them."""
    engines = {
        name: {
            "ok": proof.ok,
            "failure": proof.failure,
            "versions": dict(proof.versions),
            "proved_ms": round(proof.duration_s * 1000, 1),
            "examples": [
                {
                    "number": number,
                    "ok": number not in proof.differences,
                    "problem": proof.differences.get(number),
                    "single_ms": round(answer.seconds * 1000, 3),
                    "status": answer.status,
                    "content_type": answer.content_type,
                }
                for number, answer in enumerate(proof.answers, 1)
            ],
        }
        for name, proof in trial.proofs.items()
    }
    between = [{"number": number, "difference": line} for number, line in trial.differences.items()]
    return {"engines": engines, "differences": between}


def different(trial: Trial) -> str:
    """Return in one line what is not as it should be; there is something."""
    found = [f"{name}: {proof.failure}" for name, proof in trial.proofs.items() if proof.failure is not None]
    for name, proof in trial.proofs.items():
        found += [f"{name}, example {number}: {line}" for number, line in proof.differences.items()]
    found += [f"{' and '.join(trial.proofs)}, example {number}: {line}" for number, line in trial.differences.items()]
    for each in trial.figures:
        if each.wrong:
            found.append(f"{each.engine} under {each.clients} clients, {each.wrong} times: {each.problems[0]}")
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return f"{found[0]}{more}"
