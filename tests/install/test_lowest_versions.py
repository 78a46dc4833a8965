"""The lowest versions of the libraries that pyproject.toml allows; every other test runs with those pinned."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from support import lowest as versions

SUITE = [
    "tests/http/test_reader.py",
    "tests/ports/test_framing.py",
    "tests/gateway/surfaces/test_v2.py",
    "tests/sidecar/api/test_app.py",
    "tests/sidecar/backends/test_http_backend.py",
]
PARTS = {
    "the bare install": ["marway_ops.cli.main", "marway.objects.s3", "marway_archiver"],
    "gateway": ["marway_gateway.cli", "marway_gateway.server", "marway_gateway.surfaces.grpc.server"],
    "sidecar": [
        "marway_sidecar.cli",
        "marway_sidecar.serve",
        "marway_sidecar.backends.torchserve",
        "marway_sidecar.backends.http_server",
        "marway_sidecar.backends.grpc_predictor",
    ],
    "runtime": ["marway_runtime.cli", "marway_runtime.control"],
}


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def test_what_is_pinned_is_allowed() -> None:
    """Each pinned version is within its range."""
    pins = dict(
        line.lower().replace("_", "-").split("==")
        for line in (versions.ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    for name, low in versions.lowest().items():
        assert _number(low) <= _number(pins[name]), name


@pytest.fixture(scope="module")
def lowest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of processes that see the lowest versions."""
    directory = tmp_path_factory.mktemp("lowest") / "packages"
    versions.install(directory)
    return versions.environment(directory)


@pytest.mark.extended  # all other tests run the same code with the pinned versions
@pytest.mark.install
@pytest.mark.timeout(600)
@pytest.mark.parametrize("part", PARTS)
def test_every_part_imports(lowest: dict[str, str], part: str) -> None:
    """Each part imports with the lowest versions of what it declares, and it is those that it gets."""
    names = [name for name in versions.lowest() if name not in versions.LARGE]
    script = (
        f"import {', '.join(PARTS[part])}; from importlib.metadata import version; "
        f"print(' '.join(version(name) for name in {names!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=lowest, capture_output=True, text=True, timeout=120, cwd=versions.ROOT
    )
    assert done.returncode == 0, done.stderr
    found = dict(zip(names, done.stdout.split(), strict=True))
    for name, wanted in versions.lowest().items():
        if name in found:  # 1.40 is written 1.40.0 by those who made it
            at = _number(found[name])
            assert at[: len(_number(wanted))] == _number(wanted), name


@pytest.mark.extended  # all other tests run the same code with the pinned versions
@pytest.mark.install
@pytest.mark.timeout(600)
def test_the_command_runs(lowest: dict[str, str], tmp_path: Path) -> None:
    """`marway` packs, publishes and shows help with the lowest versions."""
    (tmp_path / "shout.py").write_text((versions.ROOT / "docs" / "shout.py").read_text())
    registry = ("--registry", (tmp_path / "registry").as_uri())
    for words in (
        ("pack", "--model-name", "shout", "--version", "1.0", "--handler", "shout.py"),
        ("publish", "shout.mar", "--create-registry", *registry),
        ("models", *registry),
        ("gateway", "--help"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "marway", *words],
            env=lowest,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.extended  # all other tests run the same code with the pinned versions
@pytest.mark.install
@pytest.mark.timeout(600)
def test_the_http_suite(lowest: dict[str, str]) -> None:
    """What is promised over HTTP holds with the lowest versions of uvicorn, httptools, starlette and the others."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis", *SUITE],
        env=lowest,
        cwd=versions.ROOT,
        capture_output=True,
        text=True,
        timeout=550,
    )
    print(done.stdout[-4000:])
    assert done.returncode == 0, done.stdout[-8000:]
