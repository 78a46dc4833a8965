from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from marway_archiver import pack
from marway_archiver.adopt.sources.options import Options

Mar = Callable[..., Path]
HANDLER = "def handle(data, context):\n    return [{'NAME': 'VERSION'} for _ in data or []]\n"


@pytest.fixture(scope="session")
def _mars(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Path]:
    return {("", ""): tmp_path_factory.mktemp("mars")}


@pytest.fixture
def mar(_mars: dict[tuple[str, str], Path]) -> Mar:
    """Puts the `.mar` of a small model into a directory, and returns its path."""

    def put(directory: Path, name: str, version: str = "1.0", *, file: str | None = None) -> Path:
        packed = _mars.get((name, version))
        if packed is None:
            home = _mars["", ""] / f"{name}-{version}"
            home.mkdir()
            (home / "handler.py").write_text(HANDLER.replace("NAME", name).replace("VERSION", version))
            packed = pack(model_name=name, version=version, handler=str(home / "handler.py"), export_path=home).path
            _mars[name, version] = packed
        directory.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copyfile(packed, directory / (file or f"{name}.mar")))

    return put


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Reads with nothing said, and a directory of its own for what is fetched."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return Options(scratch)
