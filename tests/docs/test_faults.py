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


def rows() -> dict[str, str]:
    """Return the table as fault → test."""
    lines = (ROOT / "docs" / "faults.md").read_text().splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {cell[0]: cell[3].strip("`") for cell in cells[2:]}


def test_every_fault_of_a_pod_is_listed() -> None:
    """No fault that can befall a pod is missing from the table."""
    assert rows().keys() >= POD_FAULTS


def test_every_fault_of_a_gateway_is_listed() -> None:
    """No fault that a gateway must stand is missing from the table."""
    assert rows().keys() >= GATEWAY_FAULTS


@pytest.mark.parametrize(("fault", "test"), rows().items())
def test_every_fault_has_a_test(fault: str, test: str) -> None:
    """The test that a row names is there, and says which fault it makes."""
    file, _, name = test.partition("::")
    tree = ast.parse((ROOT / file).read_text())
    functions = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    assert name in functions
    assert re.fullmatch(r"test_fault_\w+", name)
