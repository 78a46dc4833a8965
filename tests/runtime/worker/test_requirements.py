"""A model's own requirements: met, or the load says which are not."""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest

from marway_archiver import pack
from support.runtime import Runtime

with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)  # TorchServe leaves a file open when it is imported
    from marway_runtime.worker.bootstrap import RequirementsNotMet, check_requirements

MANIFEST = {"model": {"requirementsFile": "requirements.txt"}}
HANDLER = """\
import os, shutil, subprocess

def handle(data, context):
    if data is None:
        return None
    import marway_probe
    python = subprocess.run(["python3", "-c", "print('usual')"], capture_output=True, text=True).stdout
    return [{"probe": marway_probe.WHAT, "python3": python.strip()}] * len(data)
"""


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
    assert "torch" not in said.partition(":")[2].partition(": have")[0]
    assert "MARWAY_RUNTIME_INSTALL_REQUIREMENTS=true" in said


def wheel(directory: Path) -> None:
    """Write a wheel of one module."""
    info = "marway_probe-1.0.dist-info"
    with zipfile.ZipFile(directory / "marway_probe-1.0-py3-none-any.whl", "w") as target:
        target.writestr("marway_probe.py", "WHAT = 'installed'\n")
        target.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: marway-probe\nVersion: 1.0\n")
        target.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        target.writestr(f"{info}/RECORD", "")


def packed(store: Path, inputs: Path, **changes: Any) -> str:
    """Pack the handler that needs the wheel, and return the archive's name."""
    inputs.mkdir(exist_ok=True)
    store.mkdir(exist_ok=True)
    wheel(inputs)
    (inputs / "its_handler.py").write_text(HANDLER)
    (inputs / "requirements.txt").write_text(f"--no-index\n--find-links {inputs}\nmarway-probe==1.0\n")
    done = pack(
        model_name="needs", version="1.0", handler=str(inputs / "its_handler.py"), export_path=store, force=True,
        requirements_file=inputs / "requirements.txt", **changes,
    )  # fmt: skip
    return done.path.name


@pytest.mark.extended  # test_fault_a_model_without_its_packages
@pytest.mark.e2e
@pytest.mark.timeout(180)
@pytest.mark.parametrize("python", ["python", "python3"])
def test_torchserve_installs_them(tmp_path: Path, python: str) -> None:
    """Switched on, pip installs an archive's requirements into its own directory, for both of its Python runtimes."""
    name = packed(tmp_path / "store", tmp_path / "inputs", runtime=python)
    with Runtime(tmp_path / "home", tmp_path / "store", {"MARWAY_RUNTIME_INSTALL_REQUIREMENTS": "true"}) as runtime:
        runtime.register("needs", archive=name)
        assert runtime.ask("needs") == {"probe": "installed", "python3": "usual"}
        assert runtime.worker("needs").mode == "forked"


@pytest.mark.e2e
@pytest.mark.timeout(180)
def test_fault_a_model_without_its_packages(runtime: Runtime, archives: Path, tmp_path: Path) -> None:
    """Switched off, a model whose requirements are not there is refused, and its log says which."""
    name = packed(archives, tmp_path / "inputs")
    query = {"url": name, "model_name": "needs", "initial_workers": 1, "synchronous": "true"}
    answer = runtime.client.post(f"{runtime.info.addresses['management']}/models", params=query)
    assert answer.status_code >= 400
    assert "requirements.txt is not met here: marway-probe==1.0 (not installed)" in runtime.models_log()
