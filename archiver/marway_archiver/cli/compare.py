"""`marway compare`: one version on two engines, side by side."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

import typer

from marway.answers.difference import golden_of
from marway.answers.golden import DEFAULT_TOLERANCE, ExampleInput, GoldenDocument
from marway.bundles import BUNDLE_SUFFIX
from marway.errors import AnswersDiffer, ArchiveCorrupt, InvalidArchive, InvalidInput, InvalidSettings
from marway.objects import ObjectMissing
from marway.records import VersionRecord
from marway.refs import parse_reference
from marway.registry import Registry
from marway_archiver.archives import check_archive
from marway_archiver.bundles.checking import check_bundle, names_bundle
from marway_archiver.cli.engines import (
    BOTH,
    Room,
    answers_document,
    different,
    opened_room,
    print_answers,
    shown_steps,
)
from marway_archiver.cli.output import progress_bar
from marway_archiver.progress import Progress
from marway_archiver.publishing.publish import publish_archive
from marway_ops.engines.load import LoadPlan, ratios_of
from marway_ops.engines.trial import Trial, planned, try_engines
from marway_ops.shell.options import JsonOption, RegistryOption, opened_registry
from marway_ops.shell.output import print_json, print_table, warn
from marway_ops.up.plan import named_engines

__all__ = ["compare"]

_CLIENTS_MAX: Final = 256
_PIECE_BYTES: Final = 1024 * 1024
_MIB: Final = 2**20


class _Version(NamedTuple):
    """A version in the room, its golden answers, if it has some, and its golden inputs."""

    record: VersionRecord
    golden: GoldenDocument | None
    examples: tuple[ExampleInput, ...]


def compare(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A .mar or .bundle; or a model, MODEL/VERSION, MODEL/LABEL or id.")
    ],
    engine: Annotated[
        tuple[str, str], typer.Option(metavar="A B", help="The two engines; what B does is told against A.")
    ] = BOTH,
    seconds: Annotated[
        float, typer.Option(min=0.1, help="Seconds of load for each engine and number of clients, in turns.")
    ] = 4.0,
    clients: Annotated[str, typer.Option(help="Clients at once, with commas between the numbers.")] = "1,8",
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a version on both engines on this machine: are answers equal, how fast, in how much memory.

    Golden examples first, then a short load in turns; exit code 1 unless all answers are equal. Nothing is published or
    left behind.
    """
    _check_engines(engine)
    load = LoadPlan(seconds, _numbers(clients))
    plan = planned(engine)
    file = model.endswith((".mar", BUNDLE_SUFFIX)) or Path(model).is_file()
    with opened_room() as room:
        record, golden, examples = _of_file(Path(model), room) if file else _of_registry(model, registry, room)
        with shown_steps() as step:
            trial = try_engines(
                record,
                examples,
                plan,
                registry=room.registry.url,
                directory=room.directory,
                tolerance=golden.tolerance if golden is not None else DEFAULT_TOLERANCE,
                load=load,
                step=step,
                noticed=warn,
            )
    if as_json:
        print_json(_document(record, trial, len(examples)))
    else:
        _print(record, trial, examples)
    if not trial.ok:
        first, second = engine
        what = f"{record.name} {record.version} is not the same on {first} and {second}"
        raise AnswersDiffer(f"{what}: {different(trial)}")


def _check_engines(engines: Sequence[str]) -> None:
    named_engines(",".join(engines))
    if len(set(engines)) < len(engines):
        raise InvalidSettings(f"--engine names {engines[0]} twice: give two that differ")


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [each.strip() for each in text.split(",")]
    for each in numbers:
        if not (each.isascii() and each.isdigit() and 1 <= int(each) <= _CLIENTS_MAX):
            raise InvalidInput(f"--clients says {text!r}: give numbers from 1 to {_CLIENTS_MAX}, such as 1,8")
    return tuple(dict.fromkeys(map(int, numbers)))


def _of_file(path: Path, room: Room) -> _Version:
    """Publish an archive into the room, as `marway publish` does: its handler has to give its golden answers."""
    examples = _examples(path, str(path))
    with progress_bar("reading") as progress:
        record, _ = publish_archive(path, registry=room.registry, progress=progress)
    return _Version(record, golden_of(room.registry, record), examples)


def _of_registry(model: str, registry: str | None, room: Room) -> _Version:
    """Copy a version into the room, as it is served now, but for the engine that it asks for."""
    reference = parse_reference(model)
    source = opened_registry(registry)
    record = source.resolve(reference)
    golden = golden_of(source, record)
    serving = source.state(record.name).serving_for(record).model_copy(update={"engine": None})
    archive = room.directory / f"copied.{record.archive.kind}"
    with progress_bar("copying") as progress:
        _copy(source, record, archive, progress)
    wheels = _copied_wheels(source, record, room)
    examples = _examples(archive, f"{record.name} {record.version}")
    stored = room.registry.publish(
        record.model_copy(update={"serving": serving}),
        archive,
        golden=None if record.golden_sha256 is None else source.golden(record.golden_sha256),
        wheels=wheels,
    )
    for copied in (archive, *wheels.values()):
        copied.unlink()
    return _Version(stored, golden, examples)


def _copy(source: Registry, record: VersionRecord, archive: Path, progress: Progress) -> None:
    done = 0
    try:
        with source.open_archive(record.archive) as handle, archive.open("wb") as file:
            while piece := handle.read(_PIECE_BYTES):
                file.write(piece)
                done += len(piece)
                progress(done, record.archive.size_bytes)
    except ObjectMissing as exc:
        raise ArchiveCorrupt(
            f"{source.url} has no archive for {record.name} {record.version}: publish the version again"
        ) from exc


def _copied_wheels(source: Registry, record: VersionRecord, room: Room) -> dict[str, Path]:
    """Copy what a version requires, for pods to install it; return the copies by their digests."""
    found: dict[str, Path] = {}
    for wheel in (each for lock in record.environments for each in lock.wheels):
        found[wheel.sha256] = room.directory / f"{wheel.sha256}.whl"
        try:
            with source.open_wheel(wheel.sha256) as handle, found[wheel.sha256].open("wb") as file:
                shutil.copyfileobj(handle, file, _PIECE_BYTES)
        except ObjectMissing as exc:
            raise ArchiveCorrupt(
                f"{source.url} has no {wheel.filename}, which {record.name} {record.version} requires: publish it again"
            ) from exc
    return found


def _examples(archive: Path, what: str) -> tuple[ExampleInput, ...]:
    """Return an archive's golden inputs.

    Raises:
        InvalidArchive: It has none.
    """
    examples = check_bundle(archive).examples if names_bundle(archive) else check_archive(archive).examples
    if not examples:
        raise InvalidArchive(
            f"{what} carries no golden examples, so there is nothing to ask both engines: give some to `marway pack` "
            "with --example or --examples"
        )
    return examples


def _document(record: VersionRecord, trial: Trial, examples: int) -> dict[str, Any]:
    first, second = trial.proofs
    memory = trial.memory or {}
    return {
        "model": record.name,
        "version": record.version,
        "sha256": record.archive.sha256,
        "golden_sha256": record.golden_sha256,
        "examples": examples,
        "equal": trial.ok,
        **answers_document(trial),
        "load": [
            {
                "clients": each.clients,
                "engine": each.engine,
                "requests": len(each.seconds),
                "wrong": each.wrong,
                "problems": each.problems[:3],
                "requests_per_s": round(each.rate, 1),
                "p50_ms": _ms(each.percentile(50)),
                "p99_ms": _ms(each.percentile(99)),
            }
            for each in trial.figures
        ],
        "ratios": [
            {
                "clients": each.clients,
                "of": second,
                "to": first,
                "requests_per_s": round(each.median, 3),
                "least": round(each.least, 3),
                "most": round(each.most, 3),
            }
            for each in ratios_of(trial.figures, first, second)
        ],
        "memory": {
            name: {
                "mib": round(each.size_bytes / _MIB, 1),
                "kind": each.kind,
                "workers": each.workers,
                "server": each.server,
            }
            for name, each in memory.items()
        },
    }


def _ms(seconds: float) -> float | None:
    return None if math.isnan(seconds) else round(seconds * 1000, 3)


def _print(record: VersionRecord, trial: Trial, examples: Sequence[ExampleInput]) -> None:
    first, second = trial.proofs
    typer.echo(f"{record.name} {record.version}, sha256:{record.archive.sha256}")
    for name, proof in trial.proofs.items():
        if proof.failure is None:
            typer.echo(f"{name} {proof.versions.get(name, '')}: loaded and proved in {proof.duration_s:.2f} s")
    print_answers(trial, examples)
    ratios = {each.clients: each for each in ratios_of(trial.figures, first, second)}
    rows = []
    for each in trial.figures:
        ratio = ratios.get(each.clients)
        against = f"{ratio.median:.2f}x ({ratio.least:.2f}–{ratio.most:.2f})" if ratio and each.engine == second else ""
        p50, p99 = (f"{each.percentile(percent) * 1000:9.2f}" for percent in (50, 99))
        rows.append((str(each.clients), each.engine, f"{each.rate:10.1f}", p50, p99, str(each.wrong), against))
    if rows:
        print_table(("clients", "engine", "requests/s", "p50 ms", "p99 ms", "wrong", f"requests/s to {first}'s"), rows)
    for name, used in (trial.memory or {}).items():
        workers = f"{used.workers} {'worker' if used.workers == 1 else 'workers'}"
        size = f"{used.size_bytes / _MIB:.0f} MiB ({used.kind.upper()})"
        which = "all of the pod's processes" if used.server else "its sidecar, without its server, which ran before"
        typer.echo(f"{name}: {size} in {which}, {workers}")
    if trial.ok:
        asked = sum(len(each.seconds) for each in trial.figures)
        typer.echo(f"equal: {len(examples)} golden examples, and {asked} answers under load")
    else:
        typer.echo("DIFFERENT")
