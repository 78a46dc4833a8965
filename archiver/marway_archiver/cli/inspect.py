"""`marway inspect`: what an archive holds, and whether it would be accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marway.archives.entries import shown
from marway.text import printable
from marway_archiver.archives import ArchiveInfo, inspect_archive
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_ops.shell.options import JsonOption
from marway_ops.shell.output import print_json, print_table, warn

__all__ = ["inspect"]


def inspect(
    archive: Annotated[Path, typer.Argument(help="A .mar file.")],
    as_json: JsonOption = False,
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
    if info.manifest is not None:
        model = info.manifest.model
        typer.echo(f"{model.model_name} {model.model_version}, handler {shown(model.handler)}")
    form = "canonical" if info.canonical else "not canonical: publishing re-packs it"
    if not info.problems:
        typer.echo(f"{human_bytes(info.size_bytes)}, sha256:{info.sha256}, {form}")
    if info.files:
        rows = [
            (each.name, human_bytes(each.size), human_bytes(each.compressed_size), f"{each.crc32:08x}")
            for each in info.files
        ]
        print_table(("file", "size", "in archive", "crc32"), rows)
    if info.examples:
        count = len(info.examples)
        typer.echo(f"{count} golden {'example' if count == 1 else 'examples'}: run them with marway verify")
    for warning in info.warnings:
        warn(warning)
    for problem in info.problems:
        typer.echo(printable(f"marway: {info.path}: {problem}"), err=True)
