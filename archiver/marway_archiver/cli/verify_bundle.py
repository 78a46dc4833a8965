"""`marway verify X.bundle`: what can be told of a bundle without its server, and with one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from marway.answers.golden import DEFAULT_TOLERANCE, GoldenDocument, Tolerance
from marway.bundles import MAR_BACKENDS
from marway.errors import InvalidInput
from marway.records import VersionRecord
from marway.serving import ServingSettings
from marway_archiver.bundles.checking import BundleInfo
from marway_archiver.cli.engines import Room, answers_document, opened_room, print_answers, shown_steps
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.publishing.facts import RecordFacts, facts_of_bundle
from marway_archiver.publishing.locking import LockOptions
from marway_archiver.publishing.register import store
from marway_archiver.verify import verify_bundle
from marway_ops.engines.trial import Trial, planned, try_engines
from marway_ops.shell.output import print_json, warn
from marway_ops.up.plan import PlannedPod

__all__ = ["verify_bundle_file"]


def verify_bundle_file(
    path: Path,
    engines: Sequence[str],
    *,
    golden: GoldenDocument | None,
    warnings: Sequence[str],
    tolerance: Tolerance | None,
    max_batch: int | None,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Check a bundle and its golden answers, prove it on a pod of each engine, and print what came.

    Raises:
        InvalidArchive: It is refused, or ``golden`` is of another archive.
        InvalidInput: A flag is of a `.mar` only, or an engine that serves no bundles.
        Exit: With 1, an engine answers otherwise.
    """
    if max_batch is not None:
        raise InvalidInput("--max-batch: no server is asked in batches; batches of a bundle are its server's matter")
    for each in engines:
        if each in MAR_BACKENDS:
            raise InvalidInput(f"--engine {each}: its pods serve .mar archives, and {path} is a bundle")
    plan = planned(engines) if engines else ()
    with progress_bar("reading") as progress:
        info = verify_bundle(path, golden=golden, progress=progress)
    found = list(warnings)
    if not info.examples:
        found.append("the bundle carries no golden examples: that it is sound is all that was shown")
    elif golden is None:
        found.append("the answers to its golden examples are not here: give --golden or --registry")
    trial = _tried(info, plan, golden, tolerance, timeout_s) if plan else None
    ok = trial is None or trial.ok
    if as_json:
        on_engines = {} if trial is None else answers_document(trial)
        print_json(_document(info, golden, found) | {"ok": ok} | on_engines)
    else:
        _print(info, golden, trial, ok=ok)
        for warning in (*info.layout.warnings, *found):
            warn(warning)
    if not ok:
        raise typer.Exit(1)


def _tried(
    info: BundleInfo,
    plan: Sequence[PlannedPod],
    golden: GoldenDocument | None,
    tolerance: Tolerance | None,
    timeout_s: float,
) -> Trial:
    """Prove a bundle on a pod of each engine."""
    used = tolerance or (golden.tolerance if golden is not None else DEFAULT_TOLERANCE)
    with opened_room() as room, shown_steps() as step:
        return try_engines(
            _stored(room, info, golden, timeout_s),
            info.examples,
            plan,
            registry=room.registry.url,
            directory=room.directory,
            tolerance=used,
            step=step,
            noticed=warn,
        )


def _stored(room: Room, info: BundleInfo, golden: GoldenDocument | None, timeout_s: float) -> VersionRecord:
    """Store a bundle as the version that pods are to prove."""
    facts = RecordFacts(serving=ServingSettings(load_timeout_s=timeout_s, predict_timeout_s=timeout_s))
    return store(
        replace(info.packed, golden=golden, warnings=()),
        facts_of_bundle(facts, info.packed.manifest, info.layout),
        room.registry,
        create_registry=False,
        lock=LockOptions(),
        release=None,
        progress=None,
    )


def _document(info: BundleInfo, golden: GoldenDocument | None, warnings: Sequence[str]) -> dict[str, Any]:
    name, version = info.model
    return {
        "path": str(info.path),
        "sha256": info.sha256,
        "model": name,
        "version": version,
        "backend": info.packed.manifest.backend,
        "golden_sha256": None if golden is None else golden.sha256,
        "examples": [
            {"number": number, "input_sha256": each.sha256, "content_type": each.content_type}
            for number, each in enumerate(info.examples, 1)
        ],
        "warnings": [*info.layout.warnings, *warnings],
    }


def _print(info: BundleInfo, golden: GoldenDocument | None, trial: Trial | None, *, ok: bool) -> None:
    name, version = info.model
    typer.echo(f"{name} {version}, a bundle for {info.packed.manifest.backend}, sha256:{info.sha256}")
    typer.echo(f"{len(info.files)} files, {human_bytes(info.size_bytes)}, as its server wants them")
    if trial is None:
        stated = f"{len(info.examples)} golden answers are stated" if golden is not None else "no golden answers"
        typer.echo(f"sound; {stated}; no server was asked: --engine NAME does")
        return
    print_answers(trial, info.examples)
    for engine, proof in trial.proofs.items():
        if proof.failure is None:
            typer.echo(f"{engine} {proof.versions.get(engine, '')}: loaded and proved in {proof.duration_s:.2f} s")
    compared = "compared with the stated answers" if golden is not None else "no golden answers to compare with"
    typer.echo(f"{'verified' if ok else 'DIFFERENT'}, {compared}")
