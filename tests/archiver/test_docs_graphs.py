"""docs/graphs.md and docs/tables.md are true: their commands run in their order, their documents are graphs."""

from __future__ import annotations

import re
import shlex
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from marway.errors import InvalidGraph
from marway.graphs import check_graph, parse_graph
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway_archiver import publish_table
from marway_ops.cli import main as shell
from support.registry import publish

DOCS = Path(__file__).resolve().parents[2] / "docs"
GRAPHS, TABLES = ((DOCS / name).read_text(encoding="utf-8") for name in ("graphs.md", "tables.md"))


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def refused() -> list[tuple[str, str]]:
    lines = GRAPHS[GRAPHS.index("| document | says |") :].splitlines()[2:]
    return [(row[1], row[3]) for row in (line.split("`") for line in lines)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="module")
def registry(place: Path) -> Registry:
    """A registry with the models that the pages speak of."""
    found = Registry(DirectoryStore(place / ".marway/registry"))
    found.create()
    for name in ("language", "intent", "intent-de", "ranker", "m", "self"):
        publish(found, place, name, "1.0")
        found.release(name, "1.0", by="me")
    return found


@pytest.mark.extended  # publishing/test_publish_graph.py and test_publish_table.py run the same verbs
def test_the_commands_of_both_pages_work(
    registry: Registry, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the files that the pages show, each command ends with exit status 0."""
    archiver = EntryPoint("archiver", "marway_archiver.cli:register", "marway.verbs")
    monkeypatch.setattr(shell, "entry_points", lambda group: [archiver])
    monkeypatch.setenv("COLUMNS", "200")
    for name in ("MARWAY_REGISTRY", "MARWAY_ADMIN_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(place)
    Path("route.yaml").write_text(blocks(GRAPHS, "yaml")[0])
    rows = pa.table({"user_id": [7, 8], "embedding": [[0.1], [0.2]], "age": [31.0, 32.0]})
    pa.parquet.write_table(rows, "users.parquet")
    lines = [line for text in (GRAPHS, TABLES) for block in blocks(text, "console") for line in block.splitlines()]
    assert len(lines) == 5
    for line in lines:
        monkeypatch.setattr(sys, "argv", shlex.split(line.removeprefix("$ ")))
        with pytest.raises(SystemExit) as ended:
            shell.main()
        printed = capsys.readouterr()
        assert ended.value.code in (0, None), f"{line}: {printed.err}"
    assert registry.state("route").labels == {"PROD": "1.0"}
    assert check_graph(parse_graph(blocks(TABLES, "yaml")[0]), registry) == []


@pytest.mark.parametrize(("document", "says"), refused(), ids=lambda each: str(each)[:40])
def test_what_is_refused_says_what_the_table_says(registry: Registry, document: str, says: str) -> None:
    try:
        problems = check_graph(parse_graph(document), registry, model="self")
    except InvalidGraph as exc:
        problems = [exc.message]
    assert problems
    assert problems[0].startswith(says)


def test_what_the_page_says_of_columns_is_so(registry: Registry, tmp_path: Path) -> None:
    """A graph that names a column which the table has not is refused."""
    pa.parquet.write_table(pa.table({"user_id": [7], "age": [31.0]}), tmp_path / "users.parquet")
    publish_table(tmp_path / "users.parquet", model_name="people", version="1", key="user_id", registry=registry)
    document = blocks(TABLES, "yaml")[0].replace("table: users", "table: people, selector: '1'")
    assert check_graph(parse_graph(document), registry) == [
        "node features: table people 1 has no column embedding: it has age"
    ]
