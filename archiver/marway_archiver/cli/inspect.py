"""`marway inspect`: what an archive holds, and whether it would be accepted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marway.archives.entries import shown
from marway.text import printable
from marway_archiver.archives import ArchiveInfo, inspect_archive
from marway_archiver.bundles.checking import BundleInfo, inspect_bundle, names_bundle
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_ops.shell.options import JsonOption
from marway_ops.shell.output import print_json, print_table, warn

__all__ = ["inspect"]


def inspect(
    archive: Annotated[Path, typer.Argument(help="A .mar or .bundle file.")],
    as_json: JsonOption = False,
) -> None:
    """Show what an archive holds; exit code 1 if it would be refused, with the reason."""
    info: ArchiveInfo | BundleInfo
    with progress_bar("reading") as progress:
        if names_bundle(archive):
            info = inspect_bundle(archive, progress=progress)
        else:
            info = inspect_archive(archive, progress=progress)
    if as_json:
        print_json(_document(info))
    else:
        _print(info)
    if info.problems:
        raise typer.Exit(1)


def _document(info: ArchiveInfo | BundleInfo) -> dict[str, Any]:
    canonical = info.canonical if isinstance(info, ArchiveInfo) else not info.problems
    manifest = None if info.manifest is None else info.manifest.model_dump(by_alias=True, exclude_none=True)
    document: dict[str, Any] = {
        "path": str(info.path),
        "sha256": info.sha256 or None,
        "size_bytes": info.size_bytes,
        "canonical": canonical,
        "accepted": not info.problems,
        "problems": list(info.problems),
        "warnings": list(info.warnings),
        "examples": len(info.examples),
        "manifest": manifest,
        "files": [
            {"name": name, "size_bytes": size, "compressed_bytes": compressed, "crc32": f"{crc32:08x}"}
            for name, size, compressed, crc32 in _files(info)
        ],
    }
    if isinstance(info, BundleInfo):
        document |= {
            "framework": info.layout.framework,
            "streaming": info.layout.streaming,
            "signature": info.layout.signature.model_dump(mode="json"),
        }
    return document


def _files(info: ArchiveInfo | BundleInfo) -> list[tuple[str, int, int, int]]:
    """Return each file's name, size, size in the archive, and CRC-32."""
    if isinstance(info, ArchiveInfo):
        return [(each.name, each.size, each.compressed_size, each.crc32) for each in info.files]
    return [(each.name, each.size, each.size, each.crc32) for each in info.files]


def _print(info: ArchiveInfo | BundleInfo) -> None:
    if isinstance(info, BundleInfo):
        _print_bundle(info)
    else:
        if info.manifest is not None:
            model = info.manifest.model
            typer.echo(f"{model.model_name} {model.model_version}, handler {shown(model.handler)}")
        if not info.problems:
            form = "canonical" if info.canonical else "not canonical: publishing re-packs it"
            typer.echo(f"{human_bytes(info.size_bytes)}, sha256:{info.sha256}, {form}")
    if info.files:
        rows = [
            (name, human_bytes(size), human_bytes(compressed), f"{crc32:08x}")
            for name, size, compressed, crc32 in _files(info)
        ]
        print_table(("file", "size", "in archive", "crc32"), rows)
    if info.examples:
        count = len(info.examples)
        how = "marway verify --engine NAME" if isinstance(info, BundleInfo) else "marway verify"
        typer.echo(f"{count} golden {'example' if count == 1 else 'examples'}: run them with {how}")
    for warning in info.warnings:
        warn(warning)
    for problem in info.problems:
        typer.echo(printable(f"marway: {info.path}: {problem}"), err=True)


def _print_bundle(info: BundleInfo) -> None:
    manifest = info.manifest
    if manifest is not None:
        there = f", {shown(manifest.server_model)} on its server" if manifest.server_model is not None else ""
        typer.echo(f"{manifest.name} {manifest.version}, a bundle for {manifest.backend}{there}")
    if not info.problems:
        typer.echo(f"{human_bytes(info.size_bytes)}, sha256:{info.sha256}")
    for what, tensors in (("takes", info.layout.signature.inputs), ("gives", info.layout.signature.outputs)):
        for each in tensors:
            typer.echo(printable(f"{what} {each.name} {each.datatype} {list(each.shape)}"))
