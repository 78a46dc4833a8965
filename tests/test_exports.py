"""What each module exports is sorted and there."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Handlers are packed as single files of one class and import torch: tests/handlers has them.
ROOMS = ["archiver", "core", "gateway", "sidecar"]
MODULES = sorted(
    path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
    if not path.stem.endswith(("_pb2", "_pb2_grpc")) and path.name != "__main__.py"
)


def exported(path: Path) -> list[str] | None:
    for node in ast.parse(path.read_text()).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        if isinstance(target, ast.Name) and target.id == "__all__":
            assert isinstance(node, ast.Assign | ast.AnnAssign)
            assert node.value is not None
            return [str(name) for name in ast.literal_eval(node.value)]
    return None


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_say_what_they_export(path: Path) -> None:
    """Every module with code has an `__all__` that is sorted, as ruff sorts it, and whose names exist."""
    names = exported(path)
    if path.name == "__init__.py" and names is None:
        body = ast.parse(path.read_text()).body
        assert len(body) <= 1, "a package that does something says what it exports"
        return
    assert names is not None
    room = next(room for room in ROOMS if path.is_relative_to(ROOT / room))
    dotted = ".".join(path.relative_to(ROOT / room).with_suffix("").parts).removesuffix(".__init__")
    native = "marway_runtime.engines.native"
    calls = (f"{native}.async_calls", f"{native}.continuous_calls", f"{native}.worker")
    if (
        dotted.startswith(("marway_runtime.worker.", "marway_runtime.forkserver.child", *calls))
        and dotted != "marway_runtime.engines.native.worker_process"
    ):
        return  # imports torch and TorchServe, and leaves one of its files open: tests/runtime has it
    module = importlib.import_module(dotted)
    assert len(names) == len(set(names))
    for name in names:
        assert hasattr(module, name)
