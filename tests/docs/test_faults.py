"""Every row of docs/faults.md has a test that exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
POD_FAULTS = frozenset(
    {
        "TorchServe dies",
        "debris after a crash",
        "TorchServe frozen",
        "worker dies",
        "worker hangs",
        "queue full",
        "client gives up",
        "evict with work in flight",
        "duplicate load",
        "sidecar dies mid-download",
        "sidecar dies before register",
        "disk full",
        "read-only store",
        "corrupt archive",
        "truncated archive",
        "S3 does not answer",
        "store lock holder dies",
        "store lock holder stops",
        "archive's YAML lies about workers",
    }
)
"""What can befall a pod; a row may be added to the table, none of these may be missing."""

GATEWAY_FAULTS = frozenset(
    {
        "pods killed under load",
        "black-holed pod",
        "SIGTERM to a pod under load",
        "SIGTERM to a gateway under load",
        "label moves under load",
        "grey pod",
        "all pods bad",
        "oversized body",
        "slow client",
        "500 slow-loris connections",
    }
)
"""What a gateway keeps from its clients, and its clients from one another."""


TORCHSERVE = re.compile(r"TorchServe|JVM|\bworkers?\b")
"""A row that has one of these words is about a model server, of which there are two kinds."""


def tables() -> tuple[list[list[str]], list[list[str]]]:
    """Return the cells of the table of faults, and of what becomes of them on the native engine."""
    lines = (ROOT / "docs" / "faults.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    headings = [number for number, cell in enumerate(cells) if cell[0] == "fault"]
    first, second = headings
    return cells[first + 2 : second], cells[second + 2 :]


def named_tests() -> list[tuple[str, str]]:
    """Return each fault with its test, and each with its test on the native engine."""
    return [(cell[0], cell[-1].strip("`")) for table in tables() for cell in table]


def test_every_fault_of_a_pod_is_listed() -> None:
    """No fault that can befall a pod is missing from the table."""
    assert {cell[0] for cell in tables()[0]} >= POD_FAULTS


def test_every_fault_of_a_gateway_is_listed() -> None:
    """No fault that a gateway must stand is missing from the table."""
    assert {cell[0] for cell in tables()[0]} >= GATEWAY_FAULTS


def test_every_fault_of_a_model_server_is_tried_on_both() -> None:
    """A row that names TorchServe or workers has one that says what becomes of it on the native engine."""
    faults, native = tables()
    named = {cell[0] for cell in faults if TORCHSERVE.search(" ".join(cell[:3]))}
    assert named <= {cell[0] for cell in native}


@pytest.mark.parametrize(("fault", "test"), named_tests())
def test_every_fault_has_a_test(fault: str, test: str) -> None:
    """The test that a row names is there, says which fault it makes, and is run with the engine that is named."""
    file, _, name = test.partition("::")
    name, _, engine = name.partition("[")
    tree = ast.parse((ROOT / file).read_text())
    functions = {
        node.name: node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    }
    assert name in functions
    assert re.fullmatch(r"test_fault_\w+", name)
    if engine:
        assert engine == "native]"
        sources = [path.read_text() for path in (ROOT / file, (ROOT / file).with_name("conftest.py")) if path.exists()]
        assert any(re.search(r'"torchserve", .*"native"', source) for source in sources)
        assert "OF_TORCHSERVE" not in {ast.unparse(each) for each in functions[name].decorator_list}
