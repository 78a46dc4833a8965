"""TorchScript models: a file that `torch.jit.save` wrote."""

from __future__ import annotations

import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from marway.errors import InvalidArchive
from marway_archiver.importers.imported import SIGNATURE, Imported, only_file, signature_beside

__all__ = ["import_torchscript"]

_ENDINGS: Final = (".pt", ".pth", ".ts", ".torchscript")


def import_torchscript(source: Path) -> Imported:
    """Look at a TorchScript model, without loading it.

    Raises:
        InvalidArchive: There is none, or the file is weights, a pickled module or an exported program instead.
    """
    model = only_file(source, _ENDINGS, "TorchScript model")
    try:
        with zipfile.ZipFile(model) as opened:
            names = opened.namelist()
    except (OSError, zipfile.BadZipFile) as exc:
        raise InvalidArchive(
            f"{model} is no TorchScript: torch.jit.save writes a zip file, and this is none (an old pickle, perhaps)"
        ) from exc
    below = {name.split("/", 1)[1] for name in names if "/" in name}
    if not any(name.startswith("code/") for name in below) or "constants.pkl" not in below:
        raise InvalidArchive(
            f"{model} is no TorchScript but what torch.save wrote, weights or a pickled module: save it by "
            "torch.jit.script(model).save(FILE), or pack the weights with their class: --handler with --model-file and "
            "--serialized-file"
        )
    signature, added = signature_beside(model)
    warnings: tuple[str, ...] = ()
    if not added:
        warnings = (
            f"TorchScript does not say what it takes: one input, float32 of any shape, is assumed; {SIGNATURE} beside "
            "the model says otherwise",
        )
    try:
        torch = version("torch").partition("+")[0]
    except PackageNotFoundError:
        torch = None
    return Imported(
        handler="torchscript",
        framework=("pytorch", torch),
        serialized_file=model,
        add_files=added,
        signature=signature,
        warnings=warnings,
    )
