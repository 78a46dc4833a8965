from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marway_archiver import PackedArchive, pack

HANDLER = """\
class Handler:
    def initialize(self, context):
        self.context = context

    def handle(self, data, context):
        return ["ok"] * len(data)
"""
MODEL = """\
import torch


class Net(torch.nn.Module):
    pass
"""


ECHO = "def handle(data, context):\n    return [{'got': row['data']} for row in data or []]\n"


@pytest.fixture(scope="session")
def _echo(tmp_path_factory: pytest.TempPathFactory) -> PackedArchive:
    directory = tmp_path_factory.mktemp("echo")
    (directory / "its_handler.py").write_text(ECHO)
    return pack(
        model_name="m", version="1", handler=str(directory / "its_handler.py"), export_path=directory,
        examples=["one", "two"], golden_file=directory / "m.golden.json",
    )  # fmt: skip


@pytest.fixture
def echo(_echo: PackedArchive, tmp_path: Path) -> PackedArchive:
    """An archive with two examples, whose handler gives back what it got, and its golden document beside it."""
    for name in ("m.mar", "m.golden.json"):
        shutil.copyfile(_echo.path.with_name(name), tmp_path / name)
    return replace(_echo, path=tmp_path / "m.mar")


@pytest.fixture
def inputs(tmp_path: Path) -> Path:
    """Directory with one of everything that can be packed."""
    return write_inputs(tmp_path / "inputs")


def write_inputs(root: Path) -> Path:
    (root / "extra" / "sub" / "deep").mkdir(parents=True)
    (root / "extra" / "sub" / "__pycache__").mkdir()
    (root / "extra" / ".git").mkdir()
    (root / "extra" / "__MACOSX").mkdir()
    (root / "handler.py").write_text(HANDLER)
    (root / "model.py").write_text(MODEL)
    (root / "weights.pt").write_bytes(bytes(range(256)) * 8)
    (root / "requirements.txt").write_text("numpy\n")
    (root / "model-config.yaml").write_text("responseTimeout: 60\n")
    (root / "labels.json").write_text("{}\n")
    (root / "extra" / "vocab.txt").write_text("a\nb\n")
    (root / "extra" / "sub" / "deep" / "ü.txt").write_text("u\n")
    (root / "extra" / "sub" / "__pycache__" / "x.pyc").write_bytes(b"x")
    (root / "extra" / ".git" / "config").write_text("secret")
    (root / "extra" / "__MACOSX" / "x").write_text("x")
    return root


def everything(root: Path, **changes: Any) -> dict[str, Any]:
    """Arguments of a pack of all that `write_inputs` wrote."""
    arguments: dict[str, Any] = {
        "model_name": "digits",
        "version": "1.0",
        "handler": str(root / "handler.py"),
        "model_file": root / "model.py",
        "serialized_file": root / "weights.pt",
        "extra_files": f"{root / 'extra'},{root / 'labels.json'}",
        "requirements_file": root / "requirements.txt",
        "config_file": root / "model-config.yaml",
    }
    return arguments | changes


@pytest.fixture
def arguments(inputs: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Makes the arguments of a full pack into `tmp_path/out`, with changes."""
    (tmp_path / "out").mkdir()
    return lambda **changes: everything(inputs, **{"export_path": tmp_path / "out", **changes})


@pytest.fixture
def child() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts Python processes that can import what this one can, and ends those still there."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, *args: str | Path, **options: Any) -> subprocess.Popen[str]:
        env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | options.pop("env", {})
        command = [sys.executable, "-c", code, *map(str, args)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=env, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def fresh_inputs() -> Callable[[Path], Path]:
    """Writes the same inputs somewhere else."""
    return write_inputs
