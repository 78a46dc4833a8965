"""`marway copy`, `export`, `import` and `df`: what people and programs are shown, and what is refused."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.serving import ServingSettings
from support.in_process import Marway
from support.registry import Publish


@pytest.fixture
def marway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], filled: Registry) -> Marway:
    """The command, with the registry in its environment."""
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: list[EntryPoint]())
    monkeypatch.setenv("MARWAY_REGISTRY", filled.url)
    return Marway(monkeypatch, capsys)


@pytest.fixture
def filled(publish: Publish, registry: Registry) -> Registry:
    """intent 1.0 (PROD) and 1.1, with a fallback that is nowhere."""
    registry.create()
    publish("intent", "1.0")
    publish("intent", "1.1", serving=ServingSettings(fallback="nobody/1"))
    registry.release("intent", "1.0", by="test")
    registry.set_serving("intent", set_fields={"pods": 2}, by="test")
    return registry


@pytest.mark.extended  # tests/core/storage/test_copying.py has the same without the command
def test_copy(marway: Marway, filled: Registry, tmp_path: Path) -> None:
    """People see what was copied, set, left and is missing; programs one document; the history says where from."""
    to = (tmp_path / "to").as_uri()
    assert "there is no registry" in marway("copy", "intent", "--to", to).err
    said = marway("copy", "intent", "--to", to, "--labels", "--create-registry", "--note", "weekly")
    assert (said.code, said.err) == (
        0,
        "marway: warning: the registry has no nobody/1, which the fallback of intent 1.1 names\n",
    )
    lines = [line.split() for line in said.out.splitlines()]
    assert lines[1:3] == [["intent", "1.0", "copied", "10", "B", "0"], ["intent", "1.1", "copied", "10", "B", "0"]]
    assert said.out.splitlines()[3:] == [
        "intent PROD → 1.0",
        "not copied: serving settings of intent, all versions (--serving)",
    ]
    document = json.loads(marway("copy", "intent@PROD", "--to", to, "--serving", "--json").out)
    assert (document["versions"][0]["what"], document["changed"]) == (
        "there",
        ["serving settings of intent, all versions"],
    )
    assert f"1.0 copied from {filled.url}" in marway("history", "intent", "--registry", to).out
    (entry,) = (each for each in json.loads(marway("history", "intent", "--registry", to, "--json").out)
                if each.get("copied") and each["serving"]["version"] == "1.0")  # fmt: skip
    assert (entry["copied"]["registry"], entry["note"]) == (filled.url, "weekly")


@pytest.mark.extended  # a second of parsing; what flags mean is in tests/core/storage/test_copying.py
def test_flags_that_contradict(marway: Marway, tmp_path: Path) -> None:
    """Flags that would have no effect are refused."""
    to = ("--to", (tmp_path / "to").as_uri())
    for flags, message in (
        (("--label", "PROD", "--labels"), "give one of them"),
        (("--force",), "give --label or --labels"),
        (("--label", "prod"), "did you mean 'PROD'?"),
    ):
        assert message in " ".join(marway("copy", "intent", *to, *flags).err.replace("│", "").split())


@pytest.mark.extended  # tests/core/storage/test_exports.py has the same without the command
def test_a_file(marway: Marway, tmp_path: Path) -> None:
    """`export` says what is in the file and what is not, `import` what became of it; a damaged file is one line."""
    file, to = tmp_path / "x.marway", ("--registry", (tmp_path / "to").as_uri())
    said = marway("export", "intent", "--output", str(file))
    assert said.err == "marway: warning: not in the file: nobody/1, which the fallback of intent 1.1 names\n"
    assert said.out.startswith(f"{file}: intent 1.0, intent 1.1; ")
    document = json.loads(marway("export", "intent", "--output", str(file), "--json").out)
    assert (document["sha256"] in said.out, document["versions"]) == (True, ["intent 1.0", "intent 1.1"])
    assert "intent PROD → 1.0" in marway("import", str(file), "--labels", *to, "--create-registry").out
    file.write_bytes(file.read_bytes()[:-1])
    said = marway("import", str(file), *to)
    assert (said.code, len(said.err.splitlines())) == (1, 1)
    assert str(file) in said.err


@pytest.mark.extended  # tests/core/storage/test_whole.py has the same without the command
def test_backups(marway: Marway, filled: Registry, tmp_path: Path) -> None:
    """`copy --all` counts objects, and ends with status 1 where one is damaged."""
    to = ("--to", (tmp_path / "to").as_uri())
    count = len(list(filled.store.keys("")))
    assert marway("copy", "--all", *to).out.startswith(f"{count} objects copied (")
    assert json.loads(marway("copy", "--all", *to, "--json").out)["there"] == count
    (tmp_path / "registry/models/intent/state.json").write_bytes(b"{")
    said = marway("copy", "--all", *to)
    assert (said.code, "models/intent/state.json was left out" in said.err) == (1, True)


def test_df(marway: Marway, filled: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`df` shows models, versions where one is named, and all else; observations of a store of their own, too."""
    apart = DirectoryStore(tmp_path / "observed")
    apart.create("observations/model=intent/date=1/a.parquet", b"x" * 2048)
    monkeypatch.setenv("MARWAY_OBSERVATIONS", apart.url)
    said = marway("df")
    assert said.out.splitlines()[1].split() == ["intent", "2", "versions", "model", "20", "B", "20", "B", "2.0", "KiB"]
    assert "what is kept of predictions" in said.out
    assert [line.split()[:2] for line in marway("df", "intent").out.splitlines()[2:]] == [
        ["1.0", "model"],
        ["1.1", "model"],
    ]
    document = json.loads(marway("df", "--json").out)
    assert document["bytes"] == sum(document["parts"].values())
