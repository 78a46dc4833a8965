"""`marway inspect`: what an archive holds, and whether it would be accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from marway.text import printable
from marway_archiver.archives import ArchiveInfo, inspect_archive
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.format.entries import shown
from marway_ops.shell.output import print_json, warn

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("inspect")(inspect)


def inspect(
    archive: Annotated[Path, typer.Argument(help="A .mar file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show what an archive holds; exit code 1 if it would be refused, with the reason."""
    with progress_bar("reading") as progress:
        info = inspect_archive(archive, progress=progress)
    if as_json:
        print_json(_document(info))
    else:
        _print(info)
    if info.problems:
        raise typer.Exit(1)


def _document(info: ArchiveInfo) -> dict[str, Any]:
    manifest = info.manifest
    return {
        "path": str(info.path),
        "sha256": info.sha256 or None,
        "size_bytes": info.size_bytes,
        "canonical": info.canonical,
        "accepted": not info.problems,
        "problems": list(info.problems),
        "warnings": list(info.warnings),
        "examples": len(info.examples),
        "manifest": None if manifest is None else manifest.model_dump(by_alias=True, exclude_none=True),
        "files": [
            {
                "name": file.name,
                "size_bytes": file.size,
                "compressed_bytes": file.compressed_size,
                "crc32": f"{file.crc32:08x}",
            }
            for file in info.files
        ],
    }


def _print(info: ArchiveInfo) -> None:
    console = Console()
    if info.manifest is not None:
        model = info.manifest.model
        console.print(Text(f"{model.model_name} {model.model_version}, handler {shown(model.handler)}"))
    form = "canonical" if info.canonical else "not canonical: publishing re-packs it"
    if not info.problems:
        console.print(Text(f"{human_bytes(info.size_bytes)}, sha256:{info.sha256}, {form}"), soft_wrap=True)
    table = Table("file", "size", "in archive", "crc32", box=None)
    for file in info.files:
        sizes = human_bytes(file.size), human_bytes(file.compressed_size)
        table.add_row(Text(printable(file.name)), *sizes, f"{file.crc32:08x}")
    if info.files:
        console.print(table)
    if info.examples:
        count = len(info.examples)
        console.print(f"{count} golden {'example' if count == 1 else 'examples'}: run them with marway verify")
    for warning in info.warnings:
        warn(warning)
    for problem in info.problems:
        typer.echo(printable(f"marway: {info.path}: {problem}"), err=True)
