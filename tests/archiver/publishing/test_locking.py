"""Requirements become wheels in the registry when a version is published: with the real uv, over wheels made here."""

from __future__ import annotations

import base64
import hashlib
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from marway.environments.lock import Target, this_target
from marway.errors import InvalidArchive, InvalidInput, Unavailable
from marway.registry import Registry, open_registry
from marway_archiver.publishing.locking import uv
from marway_archiver.publishing.locking.uv import Candidate
from marway_archiver.publishing.locking.wheels import best, fetch
from support.cli import marway
from support.wheels import only_these, published, wheel

HERE = str(this_target())


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels, which are all that uv finds."""
    found = tmp_path / "wheels"
    wheel(found, "aa", "1.0", requires=["bb>=1", "torch>=2"])
    wheel(found, "bb", "1.5")
    wheel(found, "bb", "2.0")
    only_these(monkeypatch, found)
    return found


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return open_registry((tmp_path / "registry").as_uri(), create=True)


def names(record: object) -> list[str]:
    return [each.filename.partition("-py3")[0] for lock in record.environments for each in lock.wheels]  # type: ignore[attr-defined]


def test_requirements_are_locked(wheels: Path, registry: Registry, tmp_path: Path) -> None:
    """All that requirements come to is stored by its digest and named in the record, for this Python; torch is not."""
    record = published(tmp_path / "model", registry.url, "aa==1.0  # mine\nbb<2\ntorch\n")
    (lock,) = record.environments
    assert str(lock.target) == HERE
    assert lock.requirements == ("aa==1.0", "bb<2", "torch")
    assert names(record) == ["aa-1.0", "bb-1.5"]
    for each in lock.wheels:
        data = (wheels / each.filename).read_bytes()
        assert (each.sha256, each.size_bytes) == (hashlib.sha256(data).hexdigest(), len(data))
        with registry.open_wheel(each.sha256) as handle:
            assert handle.read() == data


def test_a_version_is_locked_once(
    wheels: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing again asks no index, and another version that comes to the same wheels fetches none."""
    first = published(tmp_path / "model", registry.url, "bb<2\n")
    second = published(tmp_path / "model", registry.url, "bb<2\n", version="2.0")
    assert second.environments == first.environments
    assert second.environments[0].digest == first.environments[0].digest
    monkeypatch.setattr(uv, "resolve", None)
    (wheels / "bb-1.5-py3-none-any.whl").unlink()
    assert published(tmp_path / "model", registry.url, "bb<2\n") == first


def test_nothing_is_locked_without_need(wheels: Path, registry: Registry, tmp_path: Path) -> None:
    """With `lock=False`, and where a pod has all that is required, the record has no lock."""
    assert published(tmp_path / "model", registry.url, "aa\n", lock=False).environments == ()
    assert published(tmp_path / "model", registry.url, "torch>=2\n", version="2.0").environments == ()


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        ("bb==9\n", "there is no version of bb==9"),
        ("dd\n", "dd==1.0 has no usable wheels"),
        ("nothing-there\n", "nothing-there was not found"),
        ("other-python\n", "only other-python"),
        ("aa\n-r more.txt\n", "more.txt"),
    ],
)
def test_what_cannot_be_locked_is_refused(
    requirements: str, said: str, wheels: Path, registry: Registry, tmp_path: Path
) -> None:
    """No such version, no wheel but sources, no wheel for the pods: uv's reason, what to do, and nothing is stored."""
    (wheels / "dd-1.0.tar.gz").write_bytes(b"")
    wheel(wheels, "other-python", "1.0", tag="cp27-cp27m-win32")
    with pytest.raises(InvalidArchive) as caught:
        published(tmp_path / "model", registry.url, requirements)
    message = caught.value.message
    assert said in message
    assert "\n" not in message
    assert f"cannot be locked for {HERE}" in message
    assert "A pod installs wheels alone, as it has no compiler" in message
    assert list(registry.models()) == []


def test_other_targets(wheels: Path, registry: Registry, tmp_path: Path) -> None:
    """A version may be locked for several Pythons and platforms, each with the wheels that it takes."""
    for machine in ("x86_64", "aarch64"):
        wheel(wheels, "cc", "1.0", tag=f"cp312-cp312-manylinux_2_17_{machine}")
    targets = ["3.12/linux-x86_64", "3.12/linux-aarch64"]
    record = published(tmp_path / "model", registry.url, "cc\n", lock_for=targets)
    assert [str(lock.target) for lock in record.environments] == targets
    assert ["x86_64" in lock.wheels[0].filename for lock in record.environments] == [True, False]
    with pytest.raises(InvalidInput, match="names no Python and platform: write them as in"):
        published(tmp_path / "model", registry.url, "cc\n", version="2.0", lock_for=["3.12"])


def test_the_best_wheel_is_taken() -> None:
    """Of several wheels of a version the one that pip would take on a pod: native before pure, none that is too new."""
    tags = (
        "py3-none-any", "cp311-cp311-manylinux_2_17_x86_64", "cp311-cp311-manylinux_2_34_x86_64",
        "cp311-cp311-manylinux2014_aarch64", "cp312-cp312-manylinux_2_17_x86_64",
    )  # fmt: skip
    candidates = [Candidate("", f"aa-1.0-{tag}.whl", None) for tag in tags]
    assert best(candidates, Target("3.11", "linux-x86_64")) is candidates[1]
    assert best(candidates, Target("3.10", "linux-x86_64")) is candidates[0]
    with pytest.raises(InvalidArchive, match=r"no wheel of aa is for 3\.10/linux-x86_64"):
        best(candidates[1:], Target("3.10", "linux-x86_64"))


class Index(SimpleHTTPRequestHandler):
    """An index that wants a name and a password."""

    def do_GET(self) -> None:
        if self.headers.get("authorization") != f"Basic {base64.b64encode(b'me:secret').decode()}":
            self.send_response(401)
            self.send_header("WWW-Authenticate", "Basic")
            self.end_headers()
            return
        super().do_GET()

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def index(wheels: Path, tmp_path: Path) -> Iterator[str]:
    """An index of the wheels, behind a password; yields its host and port."""
    root = tmp_path / "index"
    for path in wheels.iterdir():
        place = root / "simple" / path.name.partition("-")[0]
        place.mkdir(parents=True, exist_ok=True)
        (place / path.name).write_bytes(path.read_bytes())
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Index, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def test_an_index_of_your_own(
    index: str, wheels: Path, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pip is told of an index holds for uv, with the password in its address, which the record does not have."""
    for name in ("UV_NO_INDEX", "UV_FIND_LINKS"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@{index}/simple")
    record = published(tmp_path / "model", registry.url, "bb==2.0\n")
    assert names(record) == ["bb-2.0"]
    assert "secret" not in record.model_dump_json()


def test_a_wheel_that_cannot_be_had(index: str, tmp_path: Path) -> None:
    """An address that refuses is told without its password, and other bytes than an index promises are refused."""
    filename = "bb-2.0-py3-none-any.whl"
    with pytest.raises(Unavailable) as caught:
        fetch([Candidate(f"http://me:wrong@{index}/simple/bb/{filename}", filename, None)], tmp_path, {})
    assert caught.value.message == f"http://{index}/simple/bb/{filename} cannot be had: 401 Unauthorized"
    with pytest.raises(InvalidArchive, match="has other bytes"):
        fetch([Candidate(f"http://me:secret@{index}/simple/bb/{filename}", filename, "0" * 64)], tmp_path, {})


@pytest.mark.extended  # the others call what the command calls
def test_the_command_says_what_was_locked(wheels: Path, registry: Registry, tmp_path: Path) -> None:
    """`marway publish` has `--lock`, `--no-lock` and `--lock-for`, and prints what it locked."""
    (tmp_path / "its_handler.py").write_text("def handle(data, context):\n    return data\n")
    (tmp_path / "requirements.txt").write_text("aa\n")
    pack = ["--model-name", "needs", "--version", "1.0", "--handler", str(tmp_path / "its_handler.py")]
    pack += ["--requirements-file", str(tmp_path / "requirements.txt"), "--export-path", str(tmp_path)]
    assert marway("pack", *pack).returncode == 0
    archive = str(tmp_path / "needs.mar")
    done = marway("publish", archive, "--registry", registry.url)
    assert done.returncode == 0, done.stderr
    assert f"requirements locked for {HERE}: 2 wheels, " in done.stdout
    again = marway("publish", archive, "--registry", registry.url, "--no-lock")
    assert "was published before, locked to other wheels: it stays so" in again.stderr
    wrong = marway("publish", archive, "--registry", registry.url, "--lock-for", f"{sys.version_info[0]}")
    assert wrong.returncode == 1
    assert "names no Python and platform" in wrong.stderr
