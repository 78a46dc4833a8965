"""The verbs that show and change the registry: tables for people, one JSON document for programs."""

from __future__ import annotations

import json
import sys
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from marway.objects import DirectoryStore
from marway.records import Proof, utc_now
from marway.registry import Registry
from marway.serving import ServingSettings
from support.in_process import Marway, Said
from support.registry import Publish

DOC = Path(__file__).parents[2] / "docs" / "registry.md"


@pytest.fixture
def marway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registry: Registry, tmp_path: Path
) -> Marway:
    """The command, with the verbs of core and archiver, the registry in its environment, in an empty directory."""
    archiver = EntryPoint("archiver", "marway_archiver.cli:register", "marway.verbs")
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: [archiver])
    monkeypatch.setenv("MARWAY_REGISTRY", registry.url)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Marway(monkeypatch, capsys)


@pytest.fixture
def filled(publish: Publish, registry: Registry) -> Registry:
    """intent 1.0 (id run-7, PROD) and 1.1, and a deleted 1.2."""
    publish("intent", "1.0", id="run-7")
    publish("intent", "1.1")
    publish("intent", "1.2")
    registry.release("intent", "1.0", by="test")
    registry.delete("intent", "1.2", by="test")
    prove(registry, "1.1")
    return registry


def prove(registry: Registry, version: str) -> None:
    """Store the proof that a pod has loaded this version of intent."""
    record = registry.record("intent", version)
    registry.prove(
        Proof(
            kind="pod",
            archive_sha256=record.archive.sha256,
            server="torchserve",
            golden_sha256=record.golden_sha256,
            duration_s=0.2,
            at=utc_now(),
            by="pod a",
        )
    )


def printed(said: Said) -> Any:
    """Return the one JSON document that a verb printed."""
    assert said.code == 0, said.err
    return json.loads(said.out)


def mistakes() -> list[Any]:
    rows = [line for line in DOC.read_text().splitlines() if line.startswith("| ") and "`marway " in line]
    cells = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    return [pytest.param(each[1].strip("`"), each[2], int(each[3]), id=each[0]) for each in cells]


@pytest.mark.parametrize(("command", "says", "status"), mistakes())
def test_mistakes(marway: Marway, filled: Registry, command: str, says: str, status: int) -> None:
    """Each mistake in the table of docs/registry.md prints what stands there, and exits as it says."""
    Path("broken.mar").write_bytes(b"no archive")
    before = filled.state("intent")
    said = marway(*command.replace("LONG", "x" * 2000).split()[1:])
    assert said.code == status
    assert says in " ".join(said.err.split())
    if status == 1:
        assert said.err.startswith("marway: ")
        assert len(said.err.splitlines()) == 1
    assert said.out == ""
    assert filled.state("intent") == before


def test_table_is_there() -> None:
    """The table of mistakes has not been lost from the page."""
    assert len(mistakes()) > 30


def test_release(marway: Marway, filled: Registry) -> None:
    """`release` moves a label and says from where, and what was compared; with --json it prints the history's entry."""
    said = marway("release", "intent", "1.1").out
    assert said == "intent PROD → 1.1 (was 1.0)\nnot compared: neither 1.0 nor 1.1 has golden answers\n"
    entry = printed(marway("release", "intent", "1.0", "--force", "--note", "back", "--label", "STG", "--json"))
    assert (entry["kind"], entry["label"], entry["from"], entry["to"]) == ("label", "STG", None, "1.0")
    assert (entry["note"], entry["forced"]) == ("back", True)
    assert entry["comparison"]["not_compared"] == "the release was forced"


def test_rollback(marway: Marway, filled: Registry) -> None:
    """`rollback` undoes the newest release and says where the label is now."""
    marway("release", "intent", "1.1")
    assert marway("rollback", "intent").out == "intent PROD → 1.0 (was 1.1)\n"
    marway("release", "intent", "1.1")
    assert printed(marway("rollback", "intent", "--json"))["kind"] == "rollback"


def test_serving(marway: Marway, filled: Registry) -> None:
    """`serving` shows the settings in effect, changes them for all versions or one, and unsets them."""
    said = marway("serving", "intent", "--set", "max_batch_rows=8", "--set", "pool=gpu", "--set", "max_workers=null")
    assert "8 (set for all)" in said.out
    marway("serving", "intent", "--version", "1.1", "--set", "max_batch_rows=4")
    document = printed(marway("serving", "intent", "--json"))
    assert document["name"] == "intent"
    assert document["overrides"]["*"] == {"max_batch_rows": 8, "pool": "gpu", "max_workers": None}
    assert [document["serving"][version]["max_batch_rows"] for version in ("1.0", "1.1")] == [8, 4]
    document = printed(marway("serving", "intent", "--version", "1.1", "--unset", "max_batch_rows", "--json"))
    assert document["serving"] == {"1.1": document["serving"]["1.1"]}
    assert document["serving"]["1.1"]["max_batch_rows"] == 8


def test_models(marway: Marway, filled: Registry, publish: Publish) -> None:
    """`models` lists models with labels and versions, without deleted ones, a page at a time."""
    publish("other")
    assert printed(marway("models", "--json")) == [
        {"name": "intent", "labels": {"PROD": "1.0"}, "versions": ["1.0", "1.1"]},
        {"name": "other", "labels": {}, "versions": ["1.0"]},
    ]
    said = marway("models", "--limit", "1")
    assert "PROD → 1.0" in said.out
    assert "--start-after intent goes on" in said.err
    assert [row["name"] for row in printed(marway("models", "--start-after", "intent", "--json"))] == ["other"]


def test_no_models(marway: Marway) -> None:
    """An empty registry says how to begin, and is an empty list to programs."""
    assert "has no models yet: publish one" in marway("models").out
    assert printed(marway("models", "--json")) == []


def test_show_model(marway: Marway, filled: Registry) -> None:
    """`show MODEL` shows versions with their labels, overrides and what was deleted."""
    filled.set_serving("intent", set_fields={"pods": 2}, by="test")
    said = marway("show", "INTENT")
    for part in ("PROD", "1.1", "deleted", 'overridden for all versions: {"pods": 2}'):
        assert part in said.out
    document = printed(marway("show", "intent", "--json"))
    assert (document["name"], document["versions"], list(document["deleted"])) == ("intent", ["1.0", "1.1"], ["1.2"])
    assert (document["labels"], document["serving"]) == ({"PROD": "1.0"}, {"*": {"pods": 2}})


@pytest.mark.parametrize("reference", ["intent/1.0", "intent/PROD", "run-7"])
def test_show_version(marway: Marway, filled: Registry, reference: str) -> None:
    """`show` of a version, a label or an id shows the record, labels, settings in effect and proofs."""
    record = filled.record("intent", "1.0")
    filled.prove(
        Proof(kind="pod", archive_sha256=record.archive.sha256, server="torchserve", duration_s=1, at=utc_now(), by="x")
    )
    document = printed(marway("show", reference, "--json"))
    assert document["record"]["id"] == "run-7"
    assert (document["labels"], [proof["kind"] for proof in document["proofs"]]) == (["PROD"], ["pod"])
    assert document["serving"] == ServingSettings().model_dump(mode="json")
    said = marway("show", reference)
    assert "run-7" in said.out
    assert "torchserve loaded it (there are no golden answers)" in said.out


def test_history(marway: Marway, filled: Registry) -> None:
    """`history` tells all changes, newest first, or those of one label."""
    marway("serving", "intent", "--set", "pods=2", "--unset", "cache", "--note", "more")
    marway("release", "intent", "1.1", "--force", "--label", "STG")
    entries = printed(marway("history", "intent", "--json"))
    assert [entry["kind"] for entry in entries] == ["label", "serving", "tombstone", "label"]
    assert entries[1]["serving"] == {"version": "*", "set": {"pods": 2}, "unset": ["cache"]}
    assert "serving" not in entries[0]
    assert [entry["to"] for entry in printed(marway("history", "intent", "--label", "STG", "--json"))] == ["1.1"]
    said = marway("history", "intent", "--limit", "3")
    for part in ("STG none → 1.1 (forced)", "serving of all: pods=2, cache unset", "deleted 1.2", "more"):
        assert part in said.out
    assert "--limit shows more than 3" in said.err


def test_no_history(marway: Marway, publish: Publish) -> None:
    """A model that was never released says how."""
    publish("intent")
    assert "release a version with `marway release intent VERSION`" in marway("history", "intent").out
    assert printed(marway("history", "intent", "--json")) == []


def test_gc(marway: Marway, filled: Registry) -> None:
    """`gc` says what it marked, and a dry run what it would mark."""
    key = f"archives/sha256/{filled.record('intent', '1.2').archive.sha256}.mar"
    document = printed(marway("gc", "--dry-run", "--json"))
    assert (document["dry_run"], document["marked"]) == (True, [key])
    assert printed(marway("gc", "--json"))["marked"] == [key]
    assert "marked less than a day ago" in marway("gc").out


def test_nothing_to_collect(marway: Marway, publish: Publish) -> None:
    """`gc` of a tidy registry says so."""
    publish()
    assert marway("gc").out.endswith("nothing to collect\n")


def test_gc_looks_after_what_others_keep(
    marway: Marway, filled: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Each room's part of the report is beside the registry's; where one is not installed, `gc` says so."""
    observed = (tmp_path / "observed").as_uri()
    key = f"observations/model=intent/date=2020-01-01/hour=00/{'x' * 5}.parquet"
    DirectoryStore(tmp_path / "observed").create(key, b"old")
    document = printed(marway("gc", "--dry-run", "--observations", observed, "--json"))
    assert document["observations"] == {"broken": [], "expired": [key], "merged": [], "replaced": []}
    assert "older than it is to be kept, deleted" in marway("gc", "--observations", observed).out
    (tmp_path / "file").write_bytes(b"no directory")
    said = marway("gc", "--observations", (tmp_path / "file").as_uri(), "--json")
    assert (said.code, json.loads(said.out)["observations"]) == (1, None)
    assert json.loads(said.out)["waiting"]
    assert "is a file, not a directory" in said.err
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in [name for name in sys.modules if name.startswith("marway_observations")]:
        monkeypatch.delitem(sys.modules, name)
    said = marway("gc", "--json")
    assert printed(said)["observations"] is None
    assert "observations were not looked after: pip install 'marway[observations]'" in said.err


def archive(path: Path, name: str, version: str, **files: str) -> Path:
    """Write an archive as torch-model-archiver does."""
    model = {"modelName": name, "modelVersion": version, "handler": "handler.py"}
    manifest = {"runtime": "python", "model": model, "archiverVersion": "0.12.0", "createdOn": "01/01/2026 00:00:00"}
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for each, text in files.items():
            target.writestr(f"{each}.py", text)
    return path


HANDLER = "class Handler:\n    def initialize(self, context): ...\n    def handle(self, data, context): return data\n"


def test_diff(marway: Marway) -> None:
    """`diff` shows the record fields, files and sizes that differ between two versions."""
    first = archive(Path("a.mar"), "intent", "1.0", handler=HANDLER, old="x = 1\n", same="y = 1\n")
    second = archive(Path("b.mar"), "intent", "2.0", handler=HANDLER + "# more\n", new="x = 22\n", same="y = 1\n")
    Path("facts.json").write_text('{"algorithm": "rnn", "serving": {"pods": 2}}')
    assert marway("publish", str(first), "--create-registry").code == 0
    assert marway("publish", str(second), "--record", "facts.json", "--label", "STG").code == 0
    document = printed(marway("diff", "intent/1.0", "intent/STG", "--json"))
    assert (document["a"], document["b"]) == ("intent/1.0", "intent/2.0")
    fields = {each["field"]: (each["a"], each["b"]) for each in document["record"]}
    assert fields["version"] == ("1.0", "2.0")
    assert fields["algorithm"] == (None, "rnn")
    assert fields["serving.pods"] == (1, 2)
    assert "handler" not in fields
    changes = {each["name"]: each["change"] for each in document["files"]}
    manifest = changes.pop("MAR-INF/MANIFEST.json")
    assert changes == {"handler.py": "changed", "new.py": "added", "old.py": "removed"}
    assert manifest == "changed"
    sizes = {each["name"]: (each["a_bytes"], each["b_bytes"]) for each in document["files"]}
    assert sizes["old.py"] == (6, None)
    said = marway("diff", "intent/1.0", "intent/2.0")
    assert document["answers"]["not_compared"] == "neither 1.0 nor 2.0 has golden answers"
    for part in ("algorithm", "handler.py", "removed", "not compared: neither 1.0 nor 2.0 has golden answers"):
        assert part in said.out


def test_diff_of_files(marway: Marway) -> None:
    """`diff` compares files with versions and with one another, as far as both can be known."""
    first = archive(Path("a.mar"), "intent", "1.0", handler=HANDLER)
    assert marway("publish", str(first), "--create-registry").code == 0
    document = printed(marway("diff", "a.mar", "intent/1.0", "--json"))
    assert document["files"] == [] or [each["name"] for each in document["files"]] == ["MAR-INF/MANIFEST.json"]
    assert {each["field"] for each in document["record"]} <= {"archive.sha256", "archive.size_bytes"}
    assert marway("diff", "a.mar", "a.mar").out == "a.mar and a.mar do not differ\n"


def test_same_verbs_everywhere(marway: Marway, directory: DirectoryStore) -> None:
    """Every verb of the registry has --json and --registry."""
    for verb in ("models", "show", "history", "rollback", "serving", "gc", "publish", "release", "diff"):
        shown = marway(verb, "--help").out
        assert "--json" in shown, verb
        assert "--registry" in shown, verb


def test_rollouts_are_told(filled: Registry, marway: Marway) -> None:
    """`show` says how a label is divided, `history` what was done to a rollout, and `rollback` rolls one back."""
    filled.start_rollout("intent", "1.1", by="ann", note="smaller")
    filled.start_shadow("intent", "1.1", percent=20, by="ann")
    said = marway("show", "intent").out
    assert "PROD: 1 % to 1.1 in a rollout that is running (step 1 of 4, began " in said
    assert "PROD: 20 % copied to 1.1" in said
    assert printed(marway("show", "intent", "--json"))["traffic"]["PROD"]["candidate"] == "1.1"
    assert marway("rollback", "intent", "--note", "odd").out == (
        "the rollout of 1.1 is rolled back: intent PROD stays at 1.0\n"
    )
    filled.start_rollout("intent", "1.1", by="ann")
    filled.roll_back_rollout("intent", guard="errors", reason="worse", by="gateway")
    filled.start_rollout("intent", "1.1", by="ann")
    filled.promote_rollout("intent", by="ann")
    said = marway("history", "intent").out
    for line in (
        "PROD 1.0 → 1.1 (rollout promoted)",
        "rollout of 1.1 to PROD rolled back by guard errors",
        "rollout of 1.1 to PROD started at 1 %",
        "20 % of PROD copied to 1.1",
    ):
        assert line in said, said
