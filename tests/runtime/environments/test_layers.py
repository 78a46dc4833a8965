"""What of a lock is installed over a Python: what it has and all are content with is not."""

from __future__ import annotations

from pathlib import Path

import pytest
from packaging.requirements import Requirement

from marway.environments.lock import WheelRef
from marway.errors import LoadFailed
from marway_runtime.environments.layers import Package, base, layer
from support.wheels import wheel

TORCH = Package("2.10.0+cpu")


def needed(directory: Path, wheels: dict[str, list[str]], over: dict[str, Package], *requirements: str) -> set[str]:
    """Return the names of what is installed, of wheels that require what is given for each."""
    files = {}
    for title, requires in wheels.items():
        path = wheel(directory, *title.split("=="), requires=requires)
        files[WheelRef(filename=path.name, sha256="0" * 64, size_bytes=1)] = path
    return {each.filename.partition("-")[0] for each in layer(requirements, files, over, "needs 1.0")}


def test_what_is_there_and_satisfies_is_taken(tmp_path: Path) -> None:
    """Another version than the locked one will do when nobody minds; what is missing is installed."""
    over = {"numpy": Package("2.3.0"), "torch": TORCH}
    assert needed(tmp_path, {"aa==1.0": ["numpy>=1.20"], "numpy==1.26.0": []}, over, "aa", "numpy") == {"aa"}


@pytest.mark.parametrize("who", ["the archive", "a package"])
def test_what_is_there_and_does_not_satisfy_is_replaced(tmp_path: Path, who: str) -> None:
    """It is enough that one asks for another version."""
    mine, theirs = ("numpy<2", "numpy") if who == "the archive" else ("numpy", "numpy<2")
    over = {"numpy": Package("2.3.0")}
    assert needed(tmp_path, {"aa==1.0": [theirs], "numpy==1.26.0": []}, over, "aa", mine) == {"aa", "numpy"}


def test_what_is_there_must_go_with_what_is_installed(tmp_path: Path) -> None:
    """A package that would find another version of its own requirement than it is made for is installed, too."""
    over = {
        "pandas": Package("3.0", (Requirement("numpy>=2"),)),
        "seaborn": Package("1.0", (Requirement("pandas>=3"),)),
        "numpy": Package("2.3.0"),
    }
    wheels: dict[str, list[str]] = {"pandas==2.0": ["numpy"], "numpy==1.26.0": [], "seaborn==0.9": ["pandas"]}
    assert needed(tmp_path, wheels, over, "pandas", "numpy<2", "seaborn") == {"pandas", "numpy", "seaborn"}


def test_torch_is_the_pods(tmp_path: Path) -> None:
    """Who asks for another torch than there is is named, and so is a lock that has one; a local version counts."""
    over = {"torch": TORCH}
    assert needed(tmp_path, {"aa==1.0": ["torch==2.10.0"]}, over, "torch>=2") == {"aa"}
    with pytest.raises(LoadFailed, match=r"aa requires torch==1\.9, and this pod has torch 2\.10\.0\+cpu"):
        needed(tmp_path, {"aa==1.0": ["torch==1.9"]}, over)
    with pytest.raises(LoadFailed, match=r"it requires torch>=3, and this pod has torch"):
        needed(tmp_path, {}, over, "torch>=3")
    with pytest.raises(LoadFailed, match=r"its lock has torch-9\.0-py3-none-any\.whl"):
        needed(tmp_path, {"torch==9.0": []}, over)


def test_markers_and_extras(tmp_path: Path) -> None:
    """What is asked for elsewhere, or by an extra that the lock has resolved, is nobody's wish here."""
    over = {"numpy": Package("2.3.0")}
    asked = ["numpy<1; python_version < '3'", "numpy<2; extra == 'old'"]
    assert needed(tmp_path, {"aa==1.0": asked, "numpy==1.26.0": []}, over, "aa") == {"aa"}


def test_what_this_python_has() -> None:
    """It is read once, with canonical names."""
    found = base()
    assert found is base()
    assert {"torch", "torchserve", "numpy", "pyyaml"} <= found.packages.keys()
    assert any(each.name == "sympy" for each in found.packages["torch"].requires)


def test_what_is_no_wheel(tmp_path: Path) -> None:
    """A file that cannot be read as a wheel is named."""
    path = tmp_path / "aa-1.0-py3-none-any.whl"
    path.write_bytes(b"no zip")
    files = {WheelRef(filename=path.name, sha256="0" * 64, size_bytes=1): path}
    with pytest.raises(LoadFailed, match=r"aa-1\.0-py3-none-any\.whl, which it requires, is no wheel"):
        layer([], files, {}, "needs 1.0")
