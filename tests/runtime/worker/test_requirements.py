"""A model's own requirements: met, or the load says which are not."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from marway.errors import InvalidSettings
from marway.settings import load_settings
from marway_archiver import pack
from marway_runtime.settings import RuntimeSettings
from support.runtime import Runtime

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
    from marway_runtime.worker.bootstrap import RequirementsNotMet, check_requirements

MANIFEST = {"model": {"requirementsFile": "requirements.txt"}}


def check(directory: Path, text: str) -> None:
    (directory / "requirements.txt").write_text(text)
    check_requirements(directory, MANIFEST)


def test_what_is_installed_is_enough(tmp_path: Path) -> None:
    """Versions, extras, markers, hashes, comments and continued lines are read as pip reads them."""
    check(
        tmp_path,
        "# mine\n--index-url https://packages.example/simple\ntorch>=2  # any\nnumpy \\\n  >=1 --hash=sha256:00\n"
        "nothing-there; python_version < '3'\nPyYAML\n\ngit+https://example.org/x.git\n",
    )
    check_requirements(tmp_path, {"model": {}})


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    """Each that is absent or too old is in the message, with what to do."""
    with pytest.raises(RequirementsNotMet) as caught:
        check(tmp_path, "torch>=2\nmarway-nothing-there==1\nnumpy>=999\n")
    said = str(caught.value)
    assert "marway-nothing-there==1 (not installed), numpy>=999 (" in said
    assert "torch" not in said.partition(":")[2].partition(": publish")[0]
    assert "publish it without --no-lock" in said


def packed(store: Path, inputs: Path) -> str:
    """Pack a handler that needs what is not there, and return the archive's name."""
    inputs.mkdir(exist_ok=True)
    (inputs / "its_handler.py").write_text("import marway_probe\n\ndef handle(data, context):\n    return data\n")
    (inputs / "requirements.txt").write_text("marway-probe==1.0\n")
    done = pack(
        model_name="needs", version="1.0", handler=str(inputs / "its_handler.py"), export_path=store, force=True,
        requirements_file=inputs / "requirements.txt",
    )  # fmt: skip
    return done.path.name


def test_no_pod_runs_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The setting of before is refused, with what to do instead."""
    monkeypatch.setenv("MARWAY_RUNTIME_INSTALL_REQUIREMENTS", "true")
    with pytest.raises(InvalidSettings, match=r"pods run no pip any more: publish the version again"):
        load_settings(RuntimeSettings)
    monkeypatch.setenv("MARWAY_RUNTIME_INSTALL_REQUIREMENTS", "false")
    load_settings(RuntimeSettings)


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_fault_a_model_without_its_packages(runtime: Runtime, archives: Path, tmp_path: Path) -> None:
    """A model whose requirements are not there, and were not locked, is refused, and its log says which."""
    name = packed(archives, tmp_path / "inputs")
    query = {"url": name, "model_name": "needs", "initial_workers": 1, "synchronous": "true"}
    answer = runtime.client.post(f"{runtime.info.addresses['management']}/models", params=query)
    assert answer.status_code >= 400
    assert "requirements.txt is not met here: marway-probe==1.0 (not installed)" in runtime.models_log()
