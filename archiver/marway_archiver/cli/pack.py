"""`marway pack`: torch-model-archiver's flags, with their meanings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.packing import PackedArchive, pack
from marway_archiver.proving.examples import example_of_flag, read_jsonl
from marway_archiver.proving.runs import ProofPlan
from marway_archiver.publishing.publish import tolerance_of
from marway_archiver.verify import golden_beside
from marway_ops.shell.options import JsonOption
from marway_ops.shell.output import print_json, warn

__all__ = ["pack_model"]


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
    example: Annotated[
        list[str] | None,
        typer.Option(metavar="VALUE|@FILE", help="A golden example: JSON, a text, or a file's bytes. Repeatable."),
    ] = None,
    examples: Annotated[
        Path | None, typer.Option(help="Golden examples: a JSON object a line, with input, output, content_type.")
    ] = None,
    tolerance: Annotated[float, typer.Option(help="How far numbers of equal answers may lie apart.")] = 1e-4,
    max_batch: Annotated[int, typer.Option(min=1, help="Rows of the largest batch to prove.")] = 32,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds that loading, and each call, may take.")] = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Pack a model as an archive: the same inputs give the same bytes on any machine and day."""
    golden = [*map(example_of_flag, example or ()), *([] if examples is None else read_jsonl(examples))]
    plan = ProofPlan(tolerance_of(tolerance), max_batch, load_timeout_s=timeout, call_timeout_s=timeout)
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
            examples=golden,
            plan=plan,
            golden_file=golden_beside(export_path / f"{model_name}.mar"),
            progress=progress,
        )
    if as_json:
        print_json(_document(packed))
        return
    for warning in packed.warnings:
        warn(warning)
    typer.echo(f"{packed.path}  {human_bytes(packed.size_bytes)}  sha256:{packed.sha256}")
    document = packed.golden
    if document is not None:
        count = len(document.examples)
        how = f"alone and in batches of up to {document.batch_sizes[-1]}" if document.batch else "one at a time"
        typer.echo(f"{count} golden {'example' if count == 1 else 'examples'} answered {how}  sha256:{document.sha256}")


def _document(packed: PackedArchive) -> dict[str, Any]:
    model, golden = packed.manifest.model, packed.golden
    document: dict[str, Any] = {
        "path": str(packed.path),
        "sha256": packed.sha256,
        "size_bytes": packed.size_bytes,
        "model": model.model_name,
        "version": model.model_version,
        "warnings": list(packed.warnings),
        "golden": None,
    }
    if golden is not None:
        document["golden"] = {
            "path": str(golden_beside(packed.path.with_name(f"{model.model_name}.mar"))),
            "sha256": golden.sha256,
            "examples": len(golden.examples),
            **golden.model_dump(include={"batch", "batch_sizes", "batch_reason"}),
        }
    return document
