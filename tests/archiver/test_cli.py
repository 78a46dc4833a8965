from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from marway.errors import InvalidArchive
from marway_archiver.cli import register
from marway_archiver.cli.output import human_bytes


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer(pretty_exceptions_enable=False)
    register(app)
    return app


def flags(inputs: Path, out: Path) -> list[str]:
    return [
        "pack", "--model-name", "digits", "-v", "1.0", "--handler", f"{inputs}/handler.py", "--serialized-file",
        f"{inputs}/weights.pt", "--model-file", f"{inputs}/model.py", "--extra-files", f"{inputs}/extra", "-r",
        f"{inputs}/requirements.txt", "-c", f"{inputs}/model-config.yaml", "--runtime", "python3", "--export-path",
        str(out), "--archive-format", "zip-store",
    ]  # fmt: skip


def test_pack_prints_one_line(app: typer.Typer, inputs: Path, tmp_path: Path) -> None:
    """`marway pack` takes torch-model-archiver's flags and prints path, size and digest."""
    result = CliRunner().invoke(app, flags(inputs, tmp_path))
    assert result.exit_code == 0, result.output
    path, size, digest = result.stdout.split("  ")
    assert path == str(tmp_path / "digits.mar")
    assert size.endswith("KiB")
    assert digest.startswith("sha256:")


def test_pack_and_inspect_print_json(app: typer.Typer, inputs: Path, tmp_path: Path) -> None:
    """`--json` prints one document, and both verbs agree on the digest."""
    packed = json.loads(CliRunner().invoke(app, [*flags(inputs, tmp_path), "--json"]).stdout)
    shown = json.loads(CliRunner().invoke(app, ["inspect", packed["path"], "--json"]).stdout)
    assert shown["sha256"] == packed["sha256"]
    assert shown["canonical"]
    assert shown["accepted"]
    assert shown["manifest"]["model"]["modelName"] == "digits"
    assert shown["files"][0]["name"] == "MAR-INF/MANIFEST.json"


def test_inspect_prints_a_table(app: typer.Typer, inputs: Path, tmp_path: Path) -> None:
    """For people, `marway inspect` prints the model, the digest and the files."""
    CliRunner().invoke(app, flags(inputs, tmp_path))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "digits.mar")])
    assert result.exit_code == 0
    assert "digits 1.0, handler 'handler.py'" in result.stdout
    assert "sub/deep/ü.txt" in result.stdout


def test_inspect_fails_for_what_would_be_refused(app: typer.Typer, tmp_path: Path) -> None:
    """An archive with a problem is shown as far as it goes, with exit code 1."""
    (tmp_path / "x.mar").write_bytes(b"PK\3\4" + bytes(100))
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "x.mar"), "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["problems"]


def test_force_and_failure(app: typer.Typer, inputs: Path, tmp_path: Path) -> None:
    """A second pack fails with a Marway error that the shell prints; `-f` replaces."""
    runner = CliRunner()
    runner.invoke(app, flags(inputs, tmp_path))
    failed = runner.invoke(app, flags(inputs, tmp_path))
    assert isinstance(failed.exception, InvalidArchive)
    assert runner.invoke(app, [*flags(inputs, tmp_path), "-f"]).exit_code == 0


def test_missing_flags_are_wrong_usage(app: typer.Typer) -> None:
    """A missing required flag exits with 2."""
    assert CliRunner().invoke(app, ["pack", "--model-name", "m"]).exit_code == 2


def test_human_bytes() -> None:
    """Sizes are shown in the unit that suits them."""
    assert [human_bytes(size) for size in (0, 1023, 1536, 5 << 30)] == ["0 B", "1023 B", "1.5 KiB", "5.0 GiB"]
