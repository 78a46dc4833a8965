"""Packs a model of another library: its importer says what is needed, and `pack` does the rest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Any, Final

from marway_archiver.importers.huggingface import import_huggingface
from marway_archiver.importers.imported import REQUIREMENTS, Importer, handler_file
from marway_archiver.importers.mlflow import import_mlflow
from marway_archiver.importers.onnx import import_onnx
from marway_archiver.importers.sklearn import import_sklearn
from marway_archiver.importers.torchscript import import_torchscript
from marway_archiver.packing import PackedArchive, StrPath, pack
from marway_archiver.progress import Progress
from marway_archiver.proving.runs import ProofPlan
from marway_archiver.publishing.facts import ARCHIVE_FACTS, encode_archive_facts

__all__ = ["ImportKind", "pack_imported"]


class ImportKind(str, Enum):
    """The library that wrote the model."""

    onnx = "onnx"
    sklearn = "sklearn"
    torchscript = "torchscript"
    mlflow = "mlflow"
    huggingface = "huggingface"


_IMPORTERS: Final[Mapping[ImportKind, Importer]] = {
    ImportKind.onnx: import_onnx,
    ImportKind.sklearn: import_sklearn,
    ImportKind.torchscript: import_torchscript,
    ImportKind.mlflow: import_mlflow,
    ImportKind.huggingface: import_huggingface,
}


def pack_imported(
    kind: ImportKind,
    source: Path,
    *,
    model_name: str,
    version: str,
    requirements_file: Path | None = None,
    config_file: Path | None = None,
    export_path: StrPath = ".",
    force: bool = False,
    examples: Sequence[Any] = (),
    plan: ProofPlan | None = None,
    golden_file: Path | None = None,
    progress: Progress | None = None,
) -> PackedArchive:
    """Pack the model at ``source`` with a ready handler; what the model says of itself goes into the archive.

    Args:
        kind: What wrote it.
        source: A directory, or the model's file. Only local files are read.
        model_name: As for `pack`, like all that follows.
        version: The model's version.
        requirements_file: In place of what the importer found that the model needs.
        config_file: Model configuration (YAML).
        export_path: An existing directory.
        force: Replace an output that exists.
        examples: Golden examples.
        plan: How they are run.
        golden_file: Where to write the golden document.
        progress: Called as bytes are done.

    Raises:
        InvalidArchive: As `pack`; or the source is no such model, or one that is not served.
        LoadFailed: As `pack`.
    """
    found = _IMPORTERS[kind](source)
    with tempfile.TemporaryDirectory(prefix="marway-import-") as scratch:
        file = requirements_file or found.requirements_file
        if file is None and found.requirements:
            file = Path(scratch) / REQUIREMENTS
            file.write_text("".join(f"{line}\n" for line in found.requirements), encoding="utf-8")
        framework, framework_version = found.framework
        facts = encode_archive_facts(
            framework=framework,
            framework_version=framework_version,
            algorithm=kind.value,
            signature=found.signature,
        )
        packed = pack(
            model_name=model_name,
            version=version,
            handler=handler_file(found.handler),
            serialized_file=found.serialized_file,
            extra_files=list(found.extra_files),
            requirements_file=file,
            config_file=config_file,
            export_path=export_path,
            force=force,
            add_files={**found.add_files, ARCHIVE_FACTS: facts},
            examples=examples,
            plan=plan,
            golden_file=golden_file,
            progress=progress,
        )
    return replace(packed, warnings=(*found.warnings, *packed.warnings))
