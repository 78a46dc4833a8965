"""scikit-learn models: a file that `joblib.dump` or `pickle` wrote. It is looked at here and never loaded."""

from __future__ import annotations

import mmap
import re
from importlib import metadata
from pathlib import Path
from typing import Final

from marway.errors import InvalidArchive
from marway_archiver.importers.imported import Imported, only_file, pinned, signature_beside

__all__ = ["import_sklearn"]

_ENDINGS: Final = (".joblib", ".pkl", ".pickle")
# A text of a pickle: its length in one byte or in four, then itself (PEP 307, PEP 3154).
_VERSION: Final = re.compile(rb"_sklearn_version.{0,3}?(?:\x8c.|X.{4})(\d+(?:\.\w+)+)", re.DOTALL)
_OTHERS: Final = {b"xgboost": "xgboost", b"lightgbm": "lightgbm", b"catboost": "catboost", b"pandas": "pandas"}
"""Packages whose classes such a file may hold, by the name of their modules."""
_OWN_CODE: Final = re.compile(rb"(?:\x8c.|X.{4}|c)__main__", re.DOTALL)


def _installed() -> str | None:
    try:
        return metadata.version("scikit-learn")
    except metadata.PackageNotFoundError:
        return None


def import_sklearn(source: Path) -> Imported:
    """Look at a pickled estimator.

    Raises:
        InvalidArchive: There is none, it holds classes of the script that trained it, or what it needs is not known.
    """
    model = only_file(source, _ENDINGS, "scikit-learn model")
    if not model.stat().st_size:
        raise InvalidArchive(f"{model} is empty")
    with model.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if _OWN_CODE.search(content) is not None:
            raise InvalidArchive(
                f"{model} holds classes or functions of the script that made it (__main__), which no worker has: move "
                "them into a module, and pack with --handler and --extra-files"
            )
        found = _VERSION.search(content)
        written_by = None if found is None else found[1].decode()
        others = [package for module, package in _OTHERS.items() if content.find(module + b".") >= 0]
    here = pinned("scikit-learn", f"{model}").partition("==")[2] if written_by is None else _installed()
    warnings = [f"{model.name} is a pickle, and loading it runs what it says: it must come from people you trust"]
    if written_by not in (None, here):
        warnings.append(
            f"{model.name} was written by scikit-learn {written_by}, which the archive requires; its examples are "
            f"answered here by {here or 'none'}"
        )
    version = written_by or here
    signature, _ = signature_beside(model)
    return Imported(
        handler="sklearn_model",
        framework=("scikit-learn", version),
        serialized_file=model,
        requirements=(f"scikit-learn=={version}", *(pinned(each, f"{model}") for each in others)),
        signature=signature,
        warnings=tuple(warnings),
    )
