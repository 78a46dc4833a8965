"""`marway pack`: torch-model-archiver's flags, with their meanings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from marway_archiver.cli.output import human_bytes, print_json, print_warnings, progress_bar
from marway_archiver.packing import pack

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("pack")(pack_model)


def pack_model(
    model_name: Annotated[str, typer.Option(help="Model name; the output is MODEL_NAME.mar.")],
    version: Annotated[str, typer.Option("--version", "-v", help="Version of the model, such as 1.0.")],
    handler: Annotated[
        str, typer.Option(help="One of TorchServe's handlers, or a Python file: FILE or FILE:FUNCTION.")
    ],
    serialized_file: Annotated[Path | None, typer.Option(help="Weights (.pt, .pth, .onnx, …).")] = None,
    model_file: Annotated[Path | None, typer.Option(help="Python file with the model's one class.")] = None,
    extra_files: Annotated[
        str | None,
        typer.Option(help="Comma-separated files, wildcards or directories, whose contents go to the root."),
    ] = None,
    runtime: Annotated[str, typer.Option(help="python, python3 or LSP.")] = "python",
    export_path: Annotated[Path, typer.Option(help="Directory to write to.")] = Path(),
    archive_format: Annotated[
        str, typer.Option(help="default, zip-store (the same here), tgz or no-archive.")
    ] = "default",
    force: Annotated[bool, typer.Option("--force", "-f", help="Replace an output that exists.")] = False,
    requirements_file: Annotated[
        Path | None, typer.Option("--requirements-file", "-r", help="pip requirements of this model.")
    ] = None,
    config_file: Annotated[Path | None, typer.Option("--config-file", "-c", help="Model configuration (YAML).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Pack a model as an archive: the same inputs give the same bytes on any machine and day."""
    with progress_bar("packing") as progress:
        packed = pack(
            model_name=model_name,
            version=version,
            handler=handler,
            model_file=model_file,
            serialized_file=serialized_file,
            extra_files=extra_files,
            requirements_file=requirements_file,
            config_file=config_file,
            runtime=runtime,
            export_path=export_path,
            archive_format=archive_format,
            force=force,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "path": str(packed.path),
                "sha256": packed.sha256,
                "size_bytes": packed.size_bytes,
                "model": packed.manifest.model.model_name,
                "version": packed.manifest.model.model_version,
                "warnings": list(packed.warnings),
            }
        )
        return
    print_warnings(packed.warnings)
    typer.echo(f"{packed.path}  {human_bytes(packed.size_bytes)}  sha256:{packed.sha256}")
