from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner, Result

from marway.errors import InvalidArchive
from marway.objects import open_store
from marway.registry import Registry
from marway_archiver import PackedArchive, ProofPlan, pack, publish_archive, verify_archive
from marway_archiver.cli import register
from marway_archiver.proving import handler_process

ECHO = "def handle(data, context):\n    return [{'got': row['data']} for row in data or []]\n"
UP_TO_5 = (
    "def handle(data, context):\n    rows = [row['data'] for row in data or []]\n"
    "    return rows if len(rows) <= 5 else rows[::-1]\n"
)
Verify = Callable[..., Result]


@pytest.fixture
def verify(monkeypatch: pytest.MonkeyPatch) -> Verify:
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("MARWAY_REGISTRY", raising=False)
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    return lambda *flags: CliRunner().invoke(app, ["verify", *map(str, flags)])


def packed(tmp_path: Path, source: str, examples: list[Any], **changes: Any) -> PackedArchive:
    (tmp_path / "its_handler.py").write_text(source)
    given: dict[str, Any] = {
        "model_name": "m", "version": "1", "handler": str(tmp_path / "its_handler.py"), "export_path": tmp_path,
        "examples": examples, "golden_file": tmp_path / "m.golden.json",
    }  # fmt: skip
    return pack(**given | changes)


def test_an_archive_is_compared_with_what_the_registry_has(echo: PackedArchive, tmp_path: Path, verify: Verify) -> None:
    """`--registry` finds the golden answers of these bytes by the version that the manifest names."""
    url = (tmp_path / "registry").as_uri()
    before = verify(echo.path, "--registry", url)
    assert before.exit_code == 0
    assert "has no golden answers for this archive" in before.stderr
    publish_archive(echo.path, registry=Registry(open_store(url)))
    after = verify(echo.path, "--registry", url)
    assert (after.exit_code, after.stderr) == (0, "")
    assert after.stdout.count("as golden") == 2
    assert "compared with the golden answers" in after.stdout


def test_what_pack_wrote_beside_an_archive_is_what_it_is_compared_with(tmp_path: Path, verify: Verify) -> None:
    """Without a word, `marway verify` compares with the answers of the pack, and says when they are of another one."""
    archive = packed(tmp_path, ECHO, ["one", "two"])
    done = verify(archive.path)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.count("as golden") == 2
    golden = tmp_path / "m.golden.json"
    document = json.loads(golden.read_text())
    document["examples"][0]["answer"]["value"] = {"got": "something else"}
    golden.write_text(json.dumps(document))
    differs = verify(archive.path)
    assert differs.exit_code == 1
    assert "DIFFERENT" in differs.stdout
    golden.write_text(json.dumps(document | {"archive_sha256": "0" * 64}))
    other = verify(archive.path)
    assert other.exit_code == 0
    assert "is of another archive, so nothing is compared with it" in other.stderr
    assert "no golden answers to compare with" in other.stdout


def test_a_batch_that_differs_is_a_difference_unless_it_is_known(tmp_path: Path, verify: Verify) -> None:
    """Without a golden document a wrong batch ends with 1; with one that says it is not batched, with 0."""
    golden = tmp_path / "kept" / "m.golden.json"
    golden.parent.mkdir()
    archive = packed(tmp_path, UP_TO_5, ["one", "two"], golden_file=golden)
    alone = verify(archive.path)
    assert alone.exit_code == 1
    assert "not to be batched: row 1 of a batch of 8" in alone.stdout
    assert "DIFFERENT" in alone.stdout
    known = verify(archive.path, "--golden", golden, "--json")
    assert known.exit_code == 0
    document = json.loads(known.stdout)
    assert document["ok"]
    assert (document["batch"]["ok"], document["batch"]["problem"]) == (False, None)
    assert "row 1 of a batch of 8" in document["batch"]["reason"]


def test_batches_are_tried_as_far_as_they_were_proved(tmp_path: Path, verify: Verify) -> None:
    """A version proved for few rows is not held to more, unless it is asked for."""
    archive = packed(tmp_path, UP_TO_5, ["one", "two"], plan=ProofPlan(max_batch_rows=5))
    golden = tmp_path / "m.golden.json"
    assert "batches of 2, 3, 4, 5 rows" in verify(archive.path, "--golden", golden).stdout
    assert verify(archive.path, "--golden", golden, "--max-batch", "8").exit_code == 1


def test_an_archive_without_examples_is_loaded(tmp_path: Path, verify: Verify) -> None:
    """No examples: that the handler loads is all that is shown, and said."""
    archive = packed(tmp_path, ECHO, [])
    result = verify(archive.path, "--json")
    assert result.exit_code == 0
    document = json.loads(result.stdout)
    assert document["examples"] == []
    assert document["load_ms"] > 0
    assert "carries no golden examples" in document["warnings"][0]


def test_a_golden_document_with_other_examples_is_refused(echo: PackedArchive, tmp_path: Path) -> None:
    """A document of the same bytes must speak of the examples that they carry."""
    assert echo.golden is not None
    fewer = echo.golden.model_copy(update={"examples": echo.golden.examples[:1]})
    with pytest.raises(InvalidArchive, match="other examples than the archive"):
        verify_archive(echo.path, golden=fewer)
    (tmp_path / "m.golden.json").write_bytes(fewer.encode())
    with pytest.raises(InvalidArchive, match="other examples than the archive"):
        publish_archive(echo.path, registry=(tmp_path / "registry").as_uri(), create_registry=True)


def test_a_run_within_the_tolerance_keeps_the_golden_document(tmp_path: Path) -> None:
    """Publishing an archive whose numbers moved within the tolerance stores the document that it came with."""
    source = "def handle(data, context):\n    return [{'score': len(row['data']) / 7} for row in data or []]\n"
    archive = packed(tmp_path, source, ["one", "three"])
    assert archive.golden is not None
    first = archive.golden.examples[0]
    moved = first.model_copy(update={"answer": first.answer.model_copy(update={"value": {"score": 3 / 7 + 5e-5}})})
    document = archive.golden.model_copy(update={"examples": (moved, *archive.golden.examples[1:])})
    (tmp_path / "m.golden.json").write_bytes(document.encode())
    registry = Registry(open_store((tmp_path / "registry").as_uri()))
    record, _ = publish_archive(archive.path, registry=registry)
    assert record.golden_sha256 == document.sha256 != archive.golden.sha256
    assert [proof.golden_sha256 for proof in registry.proofs(archive.sha256)] == [document.sha256]


def test_verify_needs_torchserve_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TorchServe the missing package is named, which the command line turns into what to install."""
    archive = packed(tmp_path, ECHO, [])
    monkeypatch.setattr(handler_process, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError) as caught:
        verify_archive(archive.path)
    assert caught.value.name == "ts"


def test_a_verification_is_a_value(echo: PackedArchive) -> None:
    """What was found can be looked at from Python: verdicts, times, versions."""
    found = verify_archive(echo.path, golden=echo.golden)
    assert found.ok
    assert [each.seconds >= 0 for each in found.examples] == [True, True]
    assert found.run.batch_sizes == (2, 3, 4, 8, 16, 32)
    broken = replace(found, examples=(replace(found.examples[0], problem="no"),))
    assert not broken.ok
