"""The house: how large files and folders may be, and that what docs/architecture.md names is there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROOMS = ("archiver", "core", "gateway", "handlers", "sidecar")
FILE_LINES_MAX = 300
MODULES_MAX = 15
TINY_LINES = 40
ARCHITECTURE = ROOT / "docs/architecture.md"


def modules() -> Iterator[Path]:
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            if "_pb2" not in file.name and "__pycache__" not in file.parts:
                yield file


def lines(file: Path) -> int:
    return len(file.read_text().splitlines())


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(ROOT).with_suffix("").parts[1:])


def imports() -> dict[str, set[str]]:
    """Return for each module those that import it."""
    known = {dotted(file): file for file in modules()}
    found: dict[str, set[str]] = defaultdict(set)
    for name, file in known.items():
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                for target in (node.module, *(f"{node.module}.{each.name}" for each in node.names)):
                    if target in known:
                        found[target].add(name)
            elif isinstance(node, ast.Import):
                for each in node.names:
                    if each.name in known:
                        found[each.name].add(name)
    return found


def test_no_file_is_long() -> None:
    """A module has one subject, and at most 300 lines."""
    assert {str(file.relative_to(ROOT)): lines(file) for file in modules() if lines(file) > FILE_LINES_MAX} == {}


def test_no_folder_is_crowded() -> None:
    """A folder has at most 15 modules beside its `__init__`."""
    folders: dict[Path, int] = defaultdict(int)
    for file in modules():
        folders[file.parent] += file.name != "__init__.py"
    assert {str(each.relative_to(ROOT)): n for each, n in folders.items() if n > MODULES_MAX} == {}


def test_no_module_is_a_fragment() -> None:
    """What only one other module imports and is under 40 lines belongs into that one."""
    importers = imports()
    configured = (ROOT / "pyproject.toml").read_text()
    fragments = {
        dotted(file): importers[dotted(file)]
        for file in modules()
        if file.name not in ("__init__.py", "__main__.py")
        and file.parent.name != "marway_handlers"  # which are packed, not imported
        and file.parent.name != "settings"  # of a backend each
        and lines(file) < TINY_LINES
        and len(importers[dotted(file)]) == 1
        and f'"{dotted(file)}:' not in configured
    }
    assert fragments == {}


def test_the_pages_of_the_house_name_files_that_exist() -> None:
    """The way of a request has at most 12 stops, each a link to one file; so has each row of where to change what."""
    text = ARCHITECTURE.read_text()
    way = re.search(r"^## The way of a request\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert way is not None
    stops = re.findall(r"^\d+\. (.*(?:\n   .*)*)", way[1], re.MULTILINE)
    assert 5 <= len(stops) <= 12
    for stop in stops:
        assert len(re.findall(r"\]\(\.\./[a-z_/0-9]+\.py\)", stop)) == 1, stop
    table = re.search(r"^## Where to change what\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert table is not None
    rows = [row for row in table[1].splitlines() if row.startswith("| ") and "](" in row]
    assert len(rows) >= 6
    for link in re.findall(r"\]\((\.\./[^)#]+)\)", text):
        assert (ARCHITECTURE.parent / link).exists(), link


def test_one_running_system_is_shared() -> None:
    """Every file whose tests use the session's `marway up` is named among those that share one."""
    conftest = (ROOT / "tests" / "conftest.py").read_text()
    users = {
        path
        for path in (ROOT / "tests").rglob("test_*.py")
        if re.search(r"^(async )?def test_\w+\([^)]*\bup: Up\b", text := path.read_text(), re.MULTILINE)
        and not re.search(r"^(async )?def up\(", text, re.MULTILINE)
    }
    assert users, "the fixture has another name"
    for path in users:
        place, name = path.relative_to(ROOT).as_posix(), path.stem.removeprefix("test_")
        assert f'"{place}"' in conftest or (path.parent.name == "e2e" and f'"{name}"' in conftest), place
