"""`marway graph`: several models for one answer, checked, published, shown and drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Final

import typer

from marway.bundles import BUNDLE_SUFFIX
from marway.errors import MarwayError
from marway.graphs import Graph, check_graph, draw_graph, encode_graph, read_graph, references
from marway.graphs.drawing import DrawFormat
from marway.records import VersionRecord
from marway.refs import Reference, check_model_name, parse_reference
from marway.registry import Registry, open_registry
from marway.text import printable
from marway_archiver.cli.graph_import import import_
from marway_archiver.proving.examples import read_jsonl
from marway_archiver.publishing.graphs import publish_graph, read_document
from marway_ops.shell.options import (
    AdminOption,
    CreateRegistryOption,
    JsonOption,
    NoteOption,
    RegistryOption,
    admin_url,
    opened_registry,
    registry_url,
)
from marway_ops.shell.output import print_json, print_table

__all__ = ["graph"]

graph = typer.Typer(
    name="graph",
    help="Several models called for one answer, as a version of its own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

graph.command("import")(import_)

_FILES: Final = (".json", ".yaml", ".yml", BUNDLE_SUFFIX)
DocumentArgument = Annotated[Path, typer.Argument(metavar="FILE", help="A graph's document, JSON or YAML.")]
GraphArgument = Annotated[
    str,
    typer.Argument(metavar="GRAPH", help="A document or .bundle; or a published graph: MODEL, MODEL/VERSION or id."),
]


@graph.command()
def check(
    file: DocumentArgument,
    registry: Annotated[
        str | None, typer.Option(help="Look also whether all that it names is published in this registry.")
    ] = None,
    model_name: Annotated[
        str | None, typer.Option(help="What it is to be published as: a graph that leads back to itself is found.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say what is wrong with a graph, all of it with the nodes' names; exit code 1 if anything is."""
    found = read_document(file)
    if model_name is not None:
        check_model_name(model_name)
    problems = check_graph(found, None if registry is None else open_registry(registry), model=model_name)
    if as_json:
        print_json({"path": str(file), "nodes": len(found.nodes), "registry": registry, "problems": problems})
    else:
        for problem in problems:
            typer.echo(printable(f"marway: {file}: {problem}"), err=True)
    if problems:
        raise typer.Exit(1)
    if not as_json:
        names = ", ".join(sorted({str(each) for each in references(found)}))
        where = f"published in {registry}" if registry is not None else "not looked for: --registry URL does that"
        typer.echo(f"{file} can be run: {len(found.nodes)} nodes; {names} {where}" if names else f"{file} can be run")


@graph.command()
def publish(
    file: DocumentArgument,
    model_name: Annotated[str, typer.Option(help="The name that it is asked by.")],
    version: Annotated[str, typer.Option("--version", "-v", help="Version of the graph, such as 1.0.")],
    label: Annotated[str | None, typer.Option(help="Point this label at the version, such as PROD.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Golden examples: a JSON object a line, with input and output.")
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(min=0, max=1, help="How far numbers of equal answers may lie apart; 1e-4.")
    ] = None,
    record: Annotated[Path | None, typer.Option(help="JSON file of facts about the version.")] = None,
    note: NoteOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Move the label without proof or comparison; the history says so.")
    ] = False,
    registry: RegistryOption = None,
    create_registry: CreateRegistryOption = False,
    gateway: AdminOption = None,
    as_json: JsonOption = False,
) -> None:
    """Store a graph as an immutable version; all that its nodes name has to be published."""
    stored = publish_graph(
        file,
        model_name=model_name,
        version=version,
        registry=registry_url(registry),
        create_registry=create_registry,
        label=label,
        record=record,
        note=note,
        gateway=admin_url(gateway, registry) if label is not None else None,
        force=force,
        examples=() if examples is None else read_jsonl(examples),
        tolerance=tolerance,
    )
    if as_json:
        print_json(stored.model_dump(mode="json"))
        return
    typer.echo(f"published graph {stored.name} {stored.version} ({stored.id}), sha256:{stored.archive.sha256}")
    if label is not None:
        typer.echo(f"{stored.name} {label} → {stored.version}")


@graph.command()
def show(graph: GraphArgument, registry: RegistryOption = None, as_json: JsonOption = False) -> None:
    """Show a graph: its nodes, and which version each of them asks now; of a file, which it names."""
    found, record, place = _found(graph, registry)
    if as_json:
        print_json(json.loads(encode_graph(found)))
        return
    if record is not None:
        typer.echo(f"{record.name} {record.version}, sha256:{record.archive.sha256}")
    typer.echo(printable(draw_graph(found)))
    rows = [(each.node, each.role, str(each), _now(each.model, each.selector, place)) for each in references(found)]
    if rows and place is not None:
        print_table(("node", "as", "asks", "now"), rows)


def _now(model: str, selector: str, place: Registry | None) -> str:
    """Return the version that a node's reference stands for now, or why for none."""
    if place is None:
        return ""
    try:
        return place.resolve(Reference(model, selector)).version
    except MarwayError as exc:
        return exc.message


@graph.command()
def draw(
    graph: GraphArgument,
    format_: Annotated[
        str, typer.Option("--format", metavar="text|mermaid|dot", help="A tree, or a diagram for Mermaid or Graphviz.")
    ] = "text",
    registry: RegistryOption = None,
) -> None:
    """Draw a graph."""
    formats: dict[str, DrawFormat] = {"text": "text", "mermaid": "mermaid", "dot": "dot"}
    if format_ not in formats:
        raise typer.BadParameter(f"{format_!r} is none of {', '.join(formats)}", param_hint="--format")
    found, _, _ = _found(graph, registry)
    typer.echo(printable(draw_graph(found, formats[format_])))


def _found(given: str, registry: str | None) -> tuple[Graph, VersionRecord | None, Registry | None]:
    """Return the graph of a file or of the registry, its record where it has one, and the registry if one is asked."""
    path = Path(given)
    if path.suffix in _FILES or path.is_file():
        place = None if registry is None else open_registry(registry)
        return (read_graph(path) if path.suffix == BUNDLE_SUFFIX else read_document(path)), None, place
    place = opened_registry(registry)
    wanted = parse_reference(given)
    record = place.resolve(wanted)
    return place.graph(record), record, place
