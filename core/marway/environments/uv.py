"""Where the program `uv` is, which locks requirements and installs them."""

from __future__ import annotations

import shutil

__all__ = ["find_uv"]


def find_uv() -> str | None:
    """Return the path of uv: of the package in this Python, else what is on the PATH; None where there is none."""
    try:
        from uv import find_uv_bin

        return find_uv_bin()
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")
