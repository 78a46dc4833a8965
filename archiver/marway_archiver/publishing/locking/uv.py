"""The program `uv`: which versions requirements come to, and where their wheels are."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from marway.environments.lock import Target
from marway.environments.requirements import PROVIDED
from marway.environments.uv import find_uv
from marway.errors import InvalidArchive, InvalidSettings, clip

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Candidate", "index_urls", "resolve", "uv_environment"]

_TIMEOUT_S: Final = 900.0
_SAID_MAX: Final = 1500
_GLIBC: Final = "manylinux_2_28"
"""What wheels of torch for Linux are for since 2.6: no pod has an older glibc."""
_VARIABLES: Final = {
    "index-url": "UV_DEFAULT_INDEX",
    "extra-index-url": "UV_INDEX",
    "find-links": "UV_FIND_LINKS",
}
"""uv's name for what pip is told under these names."""
_SECTIONS: Final = ("global", "install", ":env:")
"""Of pip's settings: the later wins."""
_NO_INDEX: Final = "UV_NO_INDEX"
"""Its flag has no variable: this one is ours, and `PIP_NO_INDEX` sets it."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A wheel of the version that was chosen for a package.

    Attributes:
        url: Where it is: http, https or file.
        filename: Its name, which says what it is for.
        sha256: Its digest where the index says it.
    """

    url: str
    filename: str
    sha256: str | None


def resolve(
    requirements: Path, target: Target, directory: Path, environment: Mapping[str, str]
) -> list[list[Candidate]]:
    """Return, for each package that a requirements file comes to, the wheels there are of the version to take.

    Args:
        requirements: The file.
        target: What for.
        directory: An empty directory to work in.
        environment: As `uv_environment` returns it.

    Raises:
        InvalidArchive: They cannot all be had as wheels; uv says why.
        InvalidSettings: There is no uv.
    """
    environment = dict(environment)
    left_out, out = directory / "provided.txt", directory / "pylock.toml"
    left_out.write_text("\n".join(sorted(PROVIDED)))
    command = [
        _uv(), "pip", "compile", str(requirements), "--output-file", str(out), "--format", "pylock.toml",
        "--excludes", str(left_out), "--only-binary", ":all:", "--python", sys.executable,
        "--python-version", target.python, "--no-header", "--no-progress", "--color", "never", "--quiet",
    ]  # fmt: skip
    if environment.pop(_NO_INDEX, ""):
        command.append("--no-index")
    system, _, machine = target.platform.partition("-")
    if system == "linux":
        command += ["--python-platform", f"{machine}-{_GLIBC}"]
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=_TIMEOUT_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as exc:
        raise _unlocked(target, f"no answer within {_TIMEOUT_S:g} s") from exc
    if done.returncode:
        lines = (line.strip().removeprefix("error: ").removeprefix("cause: ") for line in done.stderr.splitlines())
        said = clip(" ".join(filter(None, lines)), _SAID_MAX)
        raise _unlocked(target, said or f"uv ended with status {done.returncode}")
    packages = tomllib.loads(out.read_text(encoding="utf-8")).get("packages", [])
    return [list(_candidates(package, target)) for package in packages]


def index_urls(environment: Mapping[str, str]) -> list[str]:
    """Return the addresses of indexes that the environment names, with the names and passwords in them."""
    texts = (
        environment.get(name, "") for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_INDEX", "UV_EXTRA_INDEX_URL")
    )
    return [word.partition("=")[2] if "=" in word.split("://")[0] else word for text in texts for word in text.split()]


def _candidates(package: dict[str, Any], target: Target) -> Iterator[Candidate]:
    found = package.get("wheels", [])
    direct = package.get("archive")
    if direct is not None:
        found = [direct]
    for each in found:
        url = each.get("url") or Path(each["path"]).absolute().as_uri()
        filename = each.get("name") or unquote(urlsplit(url).path.rpartition("/")[2])
        if filename.endswith(".whl"):
            yield Candidate(url, filename, each.get("hashes", {}).get("sha256"))
            continue
        raise _unlocked(target, f"{package['name']} is asked for as {filename}, which is no wheel")
    if not found:
        raise _unlocked(target, f"{package['name']} is asked for from source, not as a wheel")


def _unlocked(target: Target, why: str) -> InvalidArchive:
    return InvalidArchive(
        f"the archive's requirements cannot be locked for {target}: {why.rstrip('.')}. A pod installs wheels alone, as "
        "it has no compiler. Change the requirements file and pack again, or publish with --no-lock and put what they "
        "need into the pods' image"
    )


def _uv() -> str:
    found = find_uv()
    if found is None:
        raise InvalidSettings("uv, which locks requirements, is missing: pip install uv, or publish with --no-lock")
    return found


def uv_environment() -> dict[str, str]:
    """Return the environment to run uv in: where pip is told of indexes and uv is not, what pip is told holds."""
    environment = dict(os.environ)
    if not any(name in environment for name in (*_VARIABLES.values(), "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")):
        environment = _told_to_pip() | environment
    return environment


def _told_to_pip() -> dict[str, str]:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    told: dict[str, str] = {}
    for section in _SECTIONS:
        for line in done.stdout.splitlines():
            where, _, value = line.partition("=")
            if where.startswith(f"{section}."):
                told[where.removeprefix(f"{section}.")] = value.strip("'\"").replace("\\n", " ")
    found = {_VARIABLES[name]: " ".join(value.split()) for name, value in told.items() if name in _VARIABLES}
    if "find-links" in told:
        found["UV_FIND_LINKS"] = ",".join(told["find-links"].split())  # where uv differs from pip
    if "cert" in told:
        found["SSL_CERT_FILE"] = told["cert"]
    if told.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        found[_NO_INDEX] = "1"
    return found
