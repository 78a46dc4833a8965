"""`marway pack`: torch-model-archiver's flags, with their meanings; and bundles of directories."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from marway.bundles import BUNDLE_SUFFIX, check_backend_of_bundle
from marway.errors import InvalidInput
from marway_archiver.bundles.packing import PackedBundle, pack_bundle
from marway_archiver.cli.output import human_bytes, progress_bar
from marway_archiver.importers.importing import ImportKind, pack_imported
from marway_archiver.packing import PackedArchive, pack
from marway_archiver.proving.examples import Example, example_of_flag, read_jsonl
from marway_archiver.proving.runs import ProofPlan
from marway_archiver.publishing.facts import tolerance_of
from marway_archiver.verify import golden_beside
from marway_ops.shell.options import JsonOption
from marway_ops.shell.output import print_json, warn

__all__ = ["pack_model"]

_OF_BUNDLES: Final = ("directory", "server_model")
_OF_MAR: Final = (
    "handler", "serialized_file", "model_file", "extra_files", "runtime", "archive_format", "requirements_file",
    "config_file", "example", "max_batch", "timeout",
)  # fmt: skip
_SAID_BY_IMPORTERS: Final = ("handler", "serialized_file", "model_file", "extra_files", "runtime", "archive_format")


def pack_model(
    context: typer.Context,
    source: Annotated[Path | None, typer.Argument(help="With --from: the model's directory or file.")] = None,
    *,
    model_name: Annotated[str, typer.Option(help="Model name; the output is MODEL_NAME.mar, or .bundle.")],
    version: Annotated[str, typer.Option("--version", "-v", help="Version of the model, such as 1.0.")],
    handler: Annotated[
        str | None, typer.Option(help="One of TorchServe's handlers, or a Python file: FILE or FILE:FUNCTION.")
    ] = None,
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
    from_library: Annotated[
        ImportKind | None,
        typer.Option("--from", help="Pack a model that this library wrote, at SOURCE, with a ready handler."),
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(help="Make a bundle for this kind of model server, such as open-inference, out of --directory."),
    ] = None,
    directory: Annotated[
        Path | None,
        typer.Option(help="Of a bundle: one model as the server wants it; none for a server that has it already."),
    ] = None,
    server_model: Annotated[
        str | None,
        typer.Option(help="Of a bundle: what a server that Marway does not manage calls the model; MODEL_NAME."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Pack a model as an archive: the same inputs give the same bytes on any machine and day."""
    _check_flags(context, backend, source=source, from_library=from_library)
    listed = [] if examples is None else read_jsonl(examples)
    if backend is not None:
        with progress_bar("packing") as progress:
            bundle = pack_bundle(
                model_name=model_name,
                version=version,
                backend=backend,
                directory=directory,
                server_model=server_model,
                export_path=export_path,
                force=force,
                examples=listed,
                tolerance=tolerance_of(tolerance),
                golden_file=golden_beside(export_path / f"{model_name}{BUNDLE_SUFFIX}"),
                progress=progress,
            )
        _print(bundle, as_json=as_json)
        return
    golden: Sequence[Example] = [*map(example_of_flag, example or ()), *listed]
    plan = ProofPlan(tolerance_of(tolerance), max_batch, load_timeout_s=timeout, call_timeout_s=timeout)
    golden_file = golden_beside(export_path / f"{model_name}.mar")
    if from_library is not None and source is not None:
        with progress_bar("packing") as progress:
            packed = pack_imported(
                from_library,
                source,
                model_name=model_name,
                version=version,
                requirements_file=requirements_file,
                config_file=config_file,
                export_path=export_path,
                force=force,
                examples=golden,
                plan=plan,
                golden_file=golden_file,
                progress=progress,
            )
        _print(packed, as_json=as_json)
        return
    if handler is None:
        raise InvalidInput("give --handler to pack a .mar, or --backend and --directory to pack a bundle")
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
            golden_file=golden_file,
            progress=progress,
        )
    _print(packed, as_json=as_json)


def _check_flags(
    context: typer.Context, backend: str | None, *, source: Path | None, from_library: ImportKind | None
) -> None:
    """Refuse flags that mean nothing for what is packed.

    Raises:
        InvalidArchive, InvalidReference: No bundle is for that backend.
        InvalidInput: A flag is of the other kind of archive.
    """
    if from_library is not None and source is None:
        raise InvalidInput(f"--from {from_library.value}: say where the model is: marway pack --from … DIR")
    if from_library is None and source is not None:
        raise InvalidInput(f"{source}: what wrote this model? say it with --from, or give --handler FILE for your own")
    if from_library is not None:
        for name in (*_SAID_BY_IMPORTERS, "backend", *_OF_BUNDLES):
            if _given(context, name):
                raise InvalidInput(f"--{name.replace('_', '-')} goes not with --from, whose importer says that itself")
        return
    if backend is not None:
        check_backend_of_bundle(backend)
    for name in _OF_MAR if backend is not None else _OF_BUNDLES:
        if not _given(context, name):
            continue
        flag = f"--{name.replace('_', '-')}"
        if backend is None:
            raise InvalidInput(f"{flag} is of bundles: say which kind of model server this one is for, with --backend")
        why = f"a bundle for {backend} is the files of --directory as they are"
        if name == "example":
            why = "its golden examples are given with their outputs, by --examples"
        raise InvalidInput(f"{flag} means nothing for a bundle: {why}")


def _given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name != "DEFAULT"


def _print(packed: PackedArchive | PackedBundle, *, as_json: bool) -> None:
    if as_json:
        print_json(_document(packed))
        return
    for warning in packed.warnings:
        warn(warning)
    typer.echo(f"{packed.path}  {human_bytes(packed.size_bytes)}  sha256:{packed.sha256}")
    document = packed.golden
    if document is None:
        return
    count = len(document.examples)
    examples = f"{count} golden {'example' if count == 1 else 'examples'}"
    if document.source == "given":
        how = "with stated answers, which pods must give"
    elif document.batch:
        how = f"answered alone and in batches of up to {document.batch_sizes[-1]}"
    else:
        how = "answered one at a time"
    typer.echo(f"{examples} {how}  sha256:{document.sha256}")


def _document(packed: PackedArchive | PackedBundle) -> dict[str, Any]:
    name, version = packed.model
    golden = packed.golden
    document: dict[str, Any] = {
        "path": str(packed.path),
        "sha256": packed.sha256,
        "size_bytes": packed.size_bytes,
        "model": name,
        "version": version,
        "warnings": list(packed.warnings),
        "golden": None,
    }
    if isinstance(packed, PackedBundle):
        document["backend"] = packed.manifest.backend
    if golden is not None:
        document["golden"] = {
            "path": str(golden_beside(packed.path.with_name(f"{name}.mar"))),
            "sha256": golden.sha256,
            "examples": len(golden.examples),
            **golden.model_dump(include={"batch", "batch_sizes", "batch_reason"}),
        }
    return document
