"""Environments of servers and programs: one each, for what they require does not go together, nor with Marway's own.

Each has what the extra `backends-test-NAME`, or another `…-test-NAME`, of pyproject.toml asks for, in the versions of
`locks/NAME.txt`, which `python tests/support/servers/environments.py NAME…` writes anew. It is made on first use and
again when one of the two changes, by uv from its cache with hard links; nothing is fetched afterwards. `make clean`
removes them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

from marway.environments.uv import find_uv
from marway_archiver.publishing.locking.uv import uv_environment

__all__ = ["NAMES", "asked", "environment", "locked", "site_packages"]

ROOT = Path(__file__).parents[3]
ENVIRONMENTS = ROOT / ".venv-backends"
NAMES = ("bentoml", "importers", "litserve", "mlserver", "mms", "openapi", "transformers", "triton")
"""Of the extras `…-test-NAME`."""
_INSTALL_S = 900


def environment(name: str) -> Path:
    """Return the `bin` of a server's environment, which is made if it is not there.

    Raises:
        AssertionError: It cannot be made; uv says why.
    """
    directory = ENVIRONMENTS / name
    wanted = "\n".join((*asked(name), locked(name).read_text(), sys.version, str(directory)))
    stamp = hashlib.sha256(wanted.encode()).hexdigest()
    ENVIRONMENTS.mkdir(exist_ok=True)
    done = directory / ".made-from"
    with (ENVIRONMENTS / f"{name}.lock").open("w") as lock:  # other processes of pytest-xdist want the same
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.read_text() != stamp:
            _make(name, directory)
            done.write_text(stamp)
    return directory / "bin"


def asked(name: str) -> list[str]:
    """Return what the extra of an environment asks for."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    return next(wanted for extra, wanted in extras.items() if extra.endswith(f"-test-{name}"))


def locked(name: str) -> Path:
    """Return the file that says in which version each package of an environment is."""
    return Path(__file__).parent / "locks" / f"{name}.txt"


def site_packages(name: str) -> Path:
    """Return where an environment's packages are."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return environment(name).parent / "lib" / version / "site-packages"


def _make(name: str, directory: Path) -> None:
    _uv("venv", "--clear", "--python", sys.executable, str(directory))
    _uv(
        "pip", "install", "--python", str(directory / "bin" / "python"), "-c", str(locked(name)),
        *os.environ.get("PIP_ARGS", "").split(), *asked(name),
    )  # fmt: skip
    packages = directory / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    _PREPARE.get(name, lambda packages: None)(packages)


def _prepare_triton(packages: Path) -> None:
    """Put the Python backend together, with the stub of this Python, and let both programs be run."""
    server = packages / "pytriton" / "tritonserver"
    backend = server / "backends" / "python"
    stub = f"{sys.version_info.major}.{sys.version_info.minor}/triton_python_backend_stub"
    # Copies: the files themselves are uv's, whose modes hold in every environment.
    shutil.copyfile(server / "python_backend_stubs" / stub, backend / "triton_python_backend_stub")
    for file in (backend / "triton_python_backend_stub", server / "bin" / "tritonserver"):
        copy = file.with_suffix(".copy")
        shutil.copyfile(file, copy)
        copy.chmod(0o755)
        copy.replace(file)


def _prepare_importers(packages: Path) -> None:
    """Have Marway itself, and torch, from this environment: behind what the other has."""
    here = sysconfig.get_path("purelib")
    (packages / "zz_marway.pth").write_text(f"import site; site.addsitedir({here!r})\n")


_PREPARE: Mapping[str, Callable[[Path], None]] = {"importers": _prepare_importers, "triton": _prepare_triton}


def python_library() -> str:
    """Return the directory of this Python's shared library."""
    return str(sysconfig.get_config_var("LIBDIR"))


def write_lock(name: str) -> None:
    """Choose the versions of an environment anew."""
    text = "\n".join(asked(name))
    said = _uv(
        "pip", "compile", "-", "--python", sys.executable, "--no-header", "--no-annotate", "--quiet", "--upgrade",
        *os.environ.get("PIP_ARGS", "").split(), given=text,
    )  # fmt: skip
    # Without what a build is for, as in `torch==2.13.0+cpu`: that is the index's matter.
    locked(name).write_text("".join(f"{line.partition('+')[0]}\n" for line in said.splitlines()))


def _uv(*arguments: str, given: str = "") -> str:
    uv = find_uv()
    assert uv is not None, "uv is missing: make setup"
    # As pip does it: where there are several indexes, the version that fits comes from any of them.
    environment = {"UV_INDEX_STRATEGY": "unsafe-best-match", **uv_environment()}
    done = subprocess.run(
        [uv, *arguments, "--no-progress"], env=environment, input=given, capture_output=True, text=True,
        timeout=_INSTALL_S, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"uv {' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stdout


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        write_lock(each)
