"""`marway verify`: run an archive's golden examples again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from marway.answers.golden import DEFAULT_TOLERANCE, GoldenDocument, Tolerance
from marway.archives.entries import shown
from marway.registry import open_registry
from marway.settings import REGISTRY_ENV
from marway.text import printable
from marway_archiver.archives import ArchiveInfo, check_archive
from marway_archiver.bundles.checking import BundleInfo, check_bundle, names_bundle
from marway_archiver.cli.engines import (
    BOTH,
    answers_document,
    opened_room,
    print_answers,
    shown_steps,
    store_verified,
)
from marway_archiver.cli.output import progress_bar
from marway_archiver.cli.verify_bundle import verify_bundle_file
from marway_archiver.proving.examples import input_line
from marway_archiver.proving.runs import ProofPlan
from marway_archiver.publishing.facts import tolerance_of
from marway_archiver.verify import (
    Verification,
    golden_beside,
    golden_of_registry,
    known_golden,
    read_golden,
    verify_archive,
)
from marway_ops.engines.trial import Trial, planned, try_engines
from marway_ops.shell.options import JsonOption
from marway_ops.shell.output import print_json, print_table, warn
from marway_ops.up.plan import PlannedPod, named_engines

__all__ = ["verify"]


def verify(
    archive: Annotated[Path, typer.Argument(help="A .mar or .bundle file.")],
    golden: Annotated[
        Path | None,
        typer.Option(help="Compare with this golden document; else with the one that `marway pack` wrote beside it."),
    ] = None,
    registry: Annotated[
        str | None,
        typer.Option(
            help=f"Compare with what this registry has for the archive; ${REGISTRY_ENV} where nothing is beside it."
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(help="How far numbers of equal answers may lie apart; else as when it was packed.")
    ] = None,
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Rows of the largest batch to try; else as when it was packed, or 32.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that loading, and each call, may take.")] = 120.0,
    engine: Annotated[
        str | None,
        typer.Option(
            help="Prove it on a pod of this engine, too, started here for that; both compares torchserve and native."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Run the golden examples that an archive carries, singly and in batches; exit code 1 on a difference.

    Of a bundle, whose server is not here, check all that can be told without it.
    """
    engines = BOTH if engine == "both" else named_engines(engine) if engine is not None else ()
    tolerances = None if tolerance is None else tolerance_of(tolerance)
    bundle = names_bundle(archive)
    plan = planned(engines) if engines and not bundle else ()
    document, warnings = _golden(archive, golden, registry)
    if bundle:
        verify_bundle_file(
            archive,
            engines,
            golden=document,
            warnings=warnings,
            tolerance=tolerances,
            max_batch=max_batch,
            timeout_s=timeout,
            as_json=as_json,
        )
        return
    proved = document.batch_sizes[-1] if document is not None and document.batch_sizes else 32
    proof = ProofPlan(max_batch_rows=max_batch or proved, load_timeout_s=timeout, call_timeout_s=timeout)
    with progress_bar("reading") as progress:
        found = verify_archive(archive, golden=document, tolerance=tolerances, plan=proof, progress=progress)
    if not found.examples:
        warnings.append("the archive carries no golden examples: its handler loads, which is all that was shown")
    trial = _tried(found, plan, tolerances, timeout) if plan else None
    ok = found.ok and (trial is None or trial.ok)
    if as_json:
        on_engines = {} if trial is None else answers_document(trial)
        print_json(_document(found, warnings) | {"ok": ok} | on_engines)
    else:
        _print(found)
        if trial is not None:
            print_answers(trial, found.archive.examples)
        _print_end(found, trial, ok=ok)
        for warning in warnings:
            warn(warning)
    if not ok:
        raise typer.Exit(1)


def _tried(found: Verification, plan: Sequence[PlannedPod], tolerance: Tolerance | None, timeout_s: float) -> Trial:
    """Prove an archive on a pod of each engine."""
    with opened_room() as room, shown_steps() as step:
        return try_engines(
            store_verified(room, found, tolerance=tolerance, timeout_s=timeout_s),
            found.archive.examples,
            plan,
            registry=room.registry.url,
            directory=room.directory,
            tolerance=tolerance or (found.golden.tolerance if found.golden is not None else DEFAULT_TOLERANCE),
            step=step,
            noticed=warn,
        )


def _golden(archive: Path, given: Path | None, registry: str | None) -> tuple[GoldenDocument | None, list[str]]:
    """Return what to compare with: what was named, else what pack wrote beside the archive, else the registry's."""
    if given is not None:
        return read_golden(given), []
    warnings: list[str] = []
    beside = golden_beside(archive)
    if registry is None and beside.is_file():
        document = known_golden(archive, None, _checked(archive))
        if document is not None:
            return document, []
        warnings.append(f"{beside} is of another archive, so nothing is compared with it")
    url = registry or os.environ.get(REGISTRY_ENV)
    if not url:
        return None, warnings
    document = golden_of_registry(open_registry(url), _checked(archive))
    if document is None:
        warnings.append(f"{url} has no golden answers for this archive: there is nothing to compare with")
    return document, warnings


def _checked(archive: Path) -> ArchiveInfo | BundleInfo:
    return check_bundle(archive) if names_bundle(archive) else check_archive(archive)


def _document(found: Verification, warnings: list[str]) -> dict[str, Any]:
    info, run = found.archive, found.run
    assert info.manifest is not None
    return {
        "path": str(info.path),
        "sha256": info.sha256,
        "model": info.manifest.model.model_name,
        "version": info.manifest.model.model_version,
        "ok": found.ok,
        "golden_sha256": None if found.golden is None else found.golden.sha256,
        "versions": dict(run.versions),
        "load_ms": round(run.load_s * 1000, 1),
        "duration_ms": round(run.duration_s * 1000, 1),
        "examples": [
            {
                "number": number,
                "input_sha256": each.sent.sha256,
                "content_type": each.sent.content_type,
                "single_ms": round(each.seconds * 1000, 3),
                "ok": each.problem is None,
                "problem": each.problem,
                "answer": each.answer.model_dump(),
            }
            for number, each in enumerate(found.examples, 1)
        ],
        "batch": {
            "ok": run.batch_reason is None,
            "sizes": list(run.batch_sizes),
            "reason": run.batch_reason,
            "problem": found.batch_problem,
        },
        "warnings": warnings,
    }


def _print(found: Verification) -> None:
    info, run = found.archive, found.run
    assert info.manifest is not None
    model = info.manifest.model
    typer.echo(f"{model.model_name} {model.model_version}, sha256:{info.sha256}")
    versions = run.versions
    typer.echo(f"loaded in {run.load_s:.1f} s by TorchServe {versions['torchserve']}, torch {versions['torch']}")
    if found.examples:
        good = "as golden" if found.golden is not None else "ok"
        rows = [
            (str(number), shown(input_line(each.sent))[1:-1], f"{each.seconds * 1000:9.2f}", each.problem or good)
            for number, each in enumerate(found.examples, 1)
        ]
        print_table(("example", "input", "single ms", "result"), rows)
        sizes = ", ".join(map(str, run.batch_sizes))
        batched = f"batches of {sizes} rows are answered as single calls are"
        typer.echo(batched if run.batch_reason is None else printable(f"not to be batched: {run.batch_reason}"))


def _print_end(found: Verification, trial: Trial | None, *, ok: bool) -> None:
    compared = "compared with the golden answers" if found.golden is not None else "no golden answers to compare with"
    seconds = found.run.duration_s
    for name, proof in (trial.proofs if trial is not None else {}).items():
        seconds += proof.duration_s
        if proof.failure is None:
            typer.echo(f"{name} {proof.versions.get(name, '')}: loaded and proved in {proof.duration_s:.2f} s")
    typer.echo(f"{'verified' if ok else 'DIFFERENT'} in {seconds:.1f} s, {compared}")
