"""The environment that handlers run in: what computing needs, and no secrets."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path
from typing import Final

__all__ = ["handler_environment"]

_NAMES: Final = (
    "DYLD_LIBRARY_PATH", "HOME", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TZ", "VIRTUAL_ENV",
)  # fmt: skip
_PREFIXES: Final = ("CUDA_", "MKL_", "NVIDIA_", "OMP_", "OPENBLAS_", "TORCH_")


def handler_environment(temporary: Path, *, allowed: Collection[str] = ()) -> dict[str, str]:
    """Return the environment of a process that runs a handler, with its ``temporary`` directory.

    Variables that are ``allowed`` by name are passed on as well.
    """
    passed = {
        name: value
        for name, value in os.environ.items()
        if name in _NAMES or name.startswith(_PREFIXES) or name in allowed
    }
    passed.setdefault("OMP_NUM_THREADS", "1")  # small models get slower with more; a handler may raise it
    passed |= {name: str(temporary) for name in ("TMPDIR", "TEMP", "TMP")}
    # What a handler prints is in the log when it is printed.
    return passed | {"PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
