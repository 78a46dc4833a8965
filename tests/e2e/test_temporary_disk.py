"""A pod whose model server has no room to unpack archives: that load is refused by name, and leaves nothing behind."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from marway_archiver import publish
from support.fetching import IN_TMPFS
from support.up import Up

# Extended: tests/sidecar has a full disk in process.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400), pytest.mark.extended]
MODELS = Path(__file__).parent / "models"
MIB = 1024 * 1024


@pytest.fixture(scope="module", params=["torchserve", "native"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A `marway up` with one pod, whose temporary directory is a volume of 16 MiB that only its processes see."""
    home = tmp_path_factory.mktemp("temporary") / "home"
    temporary = tempfile.mkdtemp(prefix="mtd-", dir="/tmp")  # short: worker sockets are in it
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_TMPFS, "sh"]
    env = {"ROOT": temporary, "SIZE": "16m", "TMPDIR": temporary}
    try:
        if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], env={**os.environ, **env}).returncode:
            pytest.skip("this machine permits no mount name spaces")
        with Up(home, "--engine", request.param, env=env, prefix=prefix) as running:
            yield running
    finally:
        Path(temporary).rmdir()


def predict(up: Up, name: str) -> httpx.Response:
    pod = up.ready["pods"][0]["url"]
    return httpx.post(f"{pod}/predict/{name}", content=b"hello", timeout=60, trust_env=False)


def test_fault_temporary_directory_full(small: Up, tmp_path: Path) -> None:
    """An archive that does not fit unpacked is refused with the directory's name, for another pod; others load."""
    noise = tmp_path / "noise"
    noise.write_bytes(random.Random(1).randbytes(24 * MIB))
    for name, extra in (("large", [noise]), ("little", [])):
        publish(
            model_name=name,
            version="1.0",
            handler=str(MODELS / "probe.py"),
            extra_files=extra,
            registry=small.registry,
            label="PROD",
            force=True,  # what no pod could load has no proof
        )
    refused = predict(small, "large")
    assert (refused.status_code, refused.json()["code"]) == (503, "unavailable"), refused.text
    assert re.search(
        r"/t, into which (TorchServe unpacks archives|archives are unpacked), has ", refused.json()["detail"]
    )
    assert refused.headers["x-marway-outcome"] == "not_accepted"
    assert int(refused.headers["retry-after"]) >= 1
    temporary = Path(f"/proc/{small.process.pid}/root{(small.home / 'pods' / 'pod-0' / 'tmp').readlink()}/t")
    assert [*temporary.glob("*.download"), *temporary.glob("native-*")] == []
    assert predict(small, "little").status_code == 200
