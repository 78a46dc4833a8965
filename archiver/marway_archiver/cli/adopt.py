"""`marway adopt`: take over the models of another model server."""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from marway.errors import AnswersDiffer, InvalidInput
from marway.refs import DEFAULT_LABEL, check_label, check_version
from marway_archiver.adopt.adopting import Terms, as_planned, planned
from marway_archiver.adopt.adopting import adopt as adopt_found
from marway_archiver.adopt.found import FoundModel, Setting
from marway_archiver.adopt.report import Adopted, Report, check_report, document_of, write_report
from marway_archiver.adopt.sources.kinds import KINDS, read_source
from marway_archiver.adopt.sources.options import Options
from marway_archiver.cli.adopt_compared import asked_of, compared, differs, document, print_compared, wanted
from marway_archiver.publishing.register import opened_registry
from marway_archiver.workflows.adopting import with_workflows
from marway_ops.shell.options import (
    AdminOption,
    CreateRegistryOption,
    JsonOption,
    RegistryOption,
    admin_url,
    registry_url,
)
from marway_ops.shell.output import print_json, print_table, warn

__all__ = ["adopt"]


def adopt(
    source: Annotated[Path, typer.Argument(help="What the old server reads: its store, repository or YAML.")],
    kind: Annotated[str | None, typer.Option(help="Of which platform it is, where that cannot be told.")] = None,
    label: Annotated[
        str, typer.Option(help="Point this label at what the old server answers with by default.")
    ] = DEFAULT_LABEL,
    version: Annotated[str, typer.Option(help="Version of models whose source says none.")] = "1",
    model_store: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Of TorchServe: where its archives are.")
    ] = None,
    storage: Annotated[
        list[str] | None,
        typer.Option(metavar="URL=DIR", help="Where files of a storage are here, such as pvc://models=./models."),
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report to this file.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is found and what would be done.")] = False,
    requests: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Requests of clients: JSON lines, also of an access log, or HAR."),
    ] = None,
    old: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="The old server, which still runs: it is asked too.")
    ] = None,
    old_header: Annotated[
        list[str] | None,
        typer.Option("--from-header", metavar="HEADER", help="Sent to the old server, as 'Name: value'; repeatable."),
    ] = None,
    compare_with: Annotated[
        str | None,
        typer.Option(metavar="URL", help="A gateway that has the versions; else one is started for it, with pods."),
    ] = None,
    compare: Annotated[
        bool, typer.Option("--compare/--no-compare", help="Ask both, or only take golden examples from the old server.")
    ] = True,
    engine: Annotated[
        str | None, typer.Option(help="Of the pod that is started for TorchServe's archives: torchserve, native.")
    ] = None,
    examples: Annotated[
        int, typer.Option(min=0, max=1000, help="Golden examples of a version at most, out of its requests.")
    ] = 20,
    once: Annotated[
        bool, typer.Option("--once", help="Send the old server each request once to compare, not again for its times.")
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1, help="How far numbers of equal answers may lie apart; 0.0001.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that the old server may take for an answer.")] = 60.0,
    lock: Annotated[
        bool, typer.Option("--lock/--no-lock", help="Lock what archives require, for pods to install it.")
    ] = True,
    lock_for: Annotated[
        list[str] | None, typer.Option(help="Lock for this Python and platform, such as 3.11/linux-x86_64; repeatable.")
    ] = None,
    registry: RegistryOption = None,
    create_registry: CreateRegistryOption = False,
    gateway: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take over the models of TorchServe, KServe, ModelMesh, Triton or MLServer: versions, labels, settings.

    Says what is found, what becomes of each setting, and what has no counterpart. Nothing of the source is changed;
    again, it publishes nothing new. With --from or --requests, both servers are asked the same: their answers become
    golden examples, and are compared. Exit code 1 where a model cannot be taken over or is answered otherwise.
    """
    check_label(label)
    check_version(version)
    if kind is not None and kind not in KINDS:
        raise InvalidInput(f"--kind {kind}: it must be one of {', '.join(KINDS)}")
    if report is not None:
        check_report(report)
    url = None if dry_run else registry_url(registry)
    with ExitStack() as stack:
        scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="marway-adopt-"))
        import_options = Options(Path(scratch), label, version, model_store, _places(storage or ()))
        found = read_source(source, import_options, kind=kind)  # type: ignore[arg-type]  # looked up in KINDS above
        want = wanted(
            found,
            file=requests,
            old=old,
            headers=old_header or (),
            gateway=compare_with,
            engine=engine,
            most=examples,
            compare=compare,
            once=once,
            tolerance=tolerance,
            timeout_s=timeout,
        )
        if want is not None and want.old is not None:
            stack.callback(want.old.close)
        asked = None if want is None else asked_of(want, found)
        terms = Terms(
            create_registry=create_registry or url is None,
            lock=lock,
            lock_for=tuple(lock_for or ()),
            gateway=None if url is None else admin_url(gateway, registry),
            examples={} if asked is None else asked.examples,
            signatures={} if asked is None else asked.signatures,
            tolerance=tolerance,
        )
        asks = want is not None and want.compare and asked is not None and asked.comparable
        comparison, proofs = None, dict[str, str]()
        # A dry run is compared all the same: by a registry that goes away with it.
        place = url or (Path(scratch) / "registry").as_uri()
        if url is None and not (asks and compare_with is None):
            done = with_workflows(planned(found), None, terms, label)
        else:
            opened = opened_registry(place, create_registry=terms.create_registry)
            done = adopt_found(found, opened, terms, step=_step)
            done = with_workflows(done, opened, terms, label)
        if want is not None and asked is not None and asks:
            asked = asked.labelled({each.model.reference: each.labels for each in done.adopted})
            comparison, proofs = compared(want, asked, place)
        if url is None:
            done = as_planned(done)
    found_out = document_of(done)
    if want is not None and asked is not None:
        found_out |= document(want, asked, comparison, proofs)
        found_out["notes"] = [*found_out["notes"], *asked.notes]
    if report is not None:
        write_report(found_out, report)
    if as_json:
        print_json(found_out)
    else:
        _print(done)
        if comparison is not None:
            print_compared(comparison)
        for note in () if asked is None else asked.notes:
            warn(note)
    refused = [each for each in done.adopted if each.problem is not None]
    if refused:
        names = ", ".join(each.model.reference for each in refused[:3])
        raise InvalidInput(f"{len(refused)} of {len(done.adopted)} versions cannot be taken over: {names}")
    if comparison is not None and (what := differs(comparison)) is not None:
        raise AnswersDiffer(what)


def _places(given: list[str] | tuple[str, ...]) -> dict[str, Path]:
    places: dict[str, Path] = {}
    for each in given:
        address, equals, directory = each.rpartition("=")
        if not equals or "://" not in address or not directory:
            raise InvalidInput(f"--storage {each}: give the address and the directory, such as pvc://models=./models")
        if not Path(directory).is_dir():
            raise InvalidInput(f"--storage {each}: {directory} is no directory")
        places[address.rstrip("/")] = Path(directory)
    return places


def _step(model: FoundModel) -> None:
    typer.echo(f"publishing {model.reference}", err=True)


def _print(report: Report) -> None:
    found = report.found
    versions, names = len(found.models), _count(report)
    typer.echo(
        f"{found.source}: {found.kind}, {versions} version{'s' * (versions != 1)} of {names} model{'s' * (names != 1)}"
    )
    for note in found.notes:
        typer.echo(f"  {note}")
    print_table(
        ("MODEL", "VERSION", "BACKEND", "LABELS", "WHAT BECAME OF IT"),
        (
            (each.model.name, each.model.version, each.model.backend, ", ".join(each.labels), _outcome(each))
            for each in report.adopted
        ),
    )
    rows = [("(server)", *_row(each)) for each in found.settings]
    rows += [(each.reference, *_row(setting)) for each in found.models for setting in each.settings]
    if rows:
        typer.echo()
        print_table(("OF", "SETTING", "VALUE", "OUTCOME", "BECOMES"), rows)
        outcomes = Counter(row[3] for row in rows)
        typer.echo(", ".join(f"{outcomes[each]} {each}" for each in ("kept", "changed", "elsewhere", "none")))
    for each in report.adopted:
        for message in (*each.model.warnings, *each.messages):
            warn(f"{each.model.reference}: {message}")


def _count(report: Report) -> int:
    return len({each.name for each in report.found.models})


def _row(setting: Setting) -> tuple[str, str, str, str]:
    return setting.name, setting.value, setting.outcome, setting.becomes


def _outcome(adopted: Adopted) -> str:
    if adopted.problem is not None:
        return f"{adopted.outcome}: {adopted.problem}"
    if adopted.repacked is not None:
        return f"{adopted.outcome}, written anew: {adopted.repacked}"
    return adopted.outcome
