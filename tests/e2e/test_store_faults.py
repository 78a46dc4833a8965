"""A pod whose archive store is full, read-only or damaged: that load fails, and what is loaded serves."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marway_archiver import publish
from support.fetching import IN_TMPFS
from support.up import Up

# Extended: tests/core/archive_store/test_faults.py, in process.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.extended]
MODELS = Path(__file__).parent / "models"
MIB = 1024 * 1024


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A `marway up` with one pod, whose archive store is a volume of 4 MiB that only its processes see."""
    home = tmp_path_factory.mktemp("small") / "home"
    (home / "store").mkdir(parents=True)
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_TMPFS, "sh"]
    env = {"ROOT": str(home / "store"), "SIZE": "4m", "MARWAY_SIDECAR_ARCHIVE_STORE_FREE_BYTES": "0"}
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], env={**os.environ, **env}).returncode:
        pytest.skip("this machine permits no mount name spaces")
    with Up(home, env=env, prefix=prefix) as running:
        released(running, "loaded")
        assert predict(running, "loaded").status_code == 200
        yield running


def released(up: Up, name: str, version: str = "1.0", *, extra: Path | None = None) -> None:
    publish(
        model_name=name,
        version=version,
        handler=str(MODELS / "probe.py"),
        extra_files=[extra] if extra is not None else [],
        registry=up.registry,
        label="PROD",
        force=True,  # what no pod could load has no proof either
    )


def predict(up: Up, reference: str) -> httpx.Response:
    pod = up.ready["pods"][0]["url"]
    return httpx.post(f"{pod}/predict/{reference}", content=b"hello", timeout=60, trust_env=False)


def in_store(up: Up) -> list[str]:
    """Return what is in the store as the pod sees it."""
    store = Path(f"/proc/{up.process.pid}/root{up.home}/store")
    return sorted(path.name for path in store.iterdir() if path.name != ".locks")


def test_fault_corrupt_archive_of_a_pod(small: Up, tmp_path: Path) -> None:
    """A new version whose archive is corrupt is quarantined and refused; the old version goes on serving."""
    stored = small.home / "registry" / "archives" / "sha256"
    before = set(stored.iterdir())
    released(small, "loaded", "2.0", extra=noise(tmp_path, 1000))
    (new,) = set(stored.iterdir()) - before
    data = bytearray(new.read_bytes())
    data[len(data) // 2] ^= 1
    new.chmod(0o644)
    new.write_bytes(data)
    refused = predict(small, "loaded/2.0")
    assert (refused.status_code, refused.json()["code"]) == (502, "archive_corrupt")
    assert "publish the version again" in refused.json()["detail"]
    assert new.name not in in_store(small)
    assert (Path(f"/proc/{small.process.pid}/root{small.home}/store/quarantine") / new.name).exists()
    assert predict(small, "loaded/1.0").status_code == 200


def test_fault_disk_full_of_a_pod(small: Up, tmp_path: Path) -> None:
    """A version that does not fit on the disk fails with a clear error; loaded ones serve, and others still load."""
    released(small, "large", extra=noise(tmp_path, 8 * MIB))
    refused = predict(small, "large")
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable")
    assert "no room for an archive" in refused.json()["detail"]
    assert int(refused.headers["retry-after"]) >= 1
    assert not any(name.startswith(".fetch-") for name in in_store(small))
    assert predict(small, "loaded/1.0").status_code == 200
    released(small, "another")
    assert predict(small, "another").status_code == 200
    metrics = httpx.get(f"{small.ready['pods'][0]['url']}/metrics", timeout=60, trust_env=False).text
    assert 'marway_sidecar_archive_fetches_total{outcome="no_space"}' in metrics


def test_fault_read_only_store_of_a_pod(small: Up, tmp_path: Path) -> None:
    """When the store becomes read-only, a version that is not there fails with a clear error and loaded ones serve."""
    released(small, "late", extra=noise(tmp_path, 1000))
    inside = ["nsenter", "--target", str(small.process.pid), "--user", "--mount", "--preserve-credentials"]
    for how in ("ro", "rw"):
        subprocess.run([*inside, "mount", "-o", f"remount,{how},bind", str(small.home / "store")], check=True)
        answer = predict(small, "late")
        if how == "ro":
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert "Read-only file system" in answer.json()["detail"]
        else:
            assert answer.status_code == 200
        assert predict(small, "loaded/1.0").status_code == 200


def noise(tmp_path: Path, size: int) -> Path:
    """Write a file that does not compress."""
    path = tmp_path / "noise.bin"
    path.write_bytes(random.Random(size).randbytes(size))
    return path
