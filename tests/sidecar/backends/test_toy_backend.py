"""Another backend is a module and an entry point: it keeps the contract, and the sidecar serves with it."""

from __future__ import annotations

import itertools
from pathlib import Path

import httpx
import pytest

from marway.errors import InvalidSettings
from marway.objects import DirectoryStore
from marway.registry import Registry
from marway.settings import load_settings
from marway_sidecar.backends.base import Backend, ServedModel
from marway_sidecar.backends.contract import CHECKS, Check, run_check
from marway_sidecar.backends.installed import open_backend
from marway_sidecar.settings import SidecarSettings
from support.registry import publisher
from support.torchserve import sidecar

TOY = Path(__file__).parent / "toy"


class Toy:
    """The toy as the contract suite sees it."""

    streams = workers_die = True

    def __init__(self, scratch: Path, backend: Backend) -> None:
        self.backend = backend
        self._scratch = scratch
        self._numbers = itertools.count()

    def model(self, name: str, *, streaming: bool = False, broken: bool = False) -> ServedModel:
        path = self._scratch / f"{name}-{next(self._numbers)}"
        path.write_text("broken" if broken else "toy")
        return ServedModel(path.name, name, "1.0", path, 1, 10.0, 10.0, streaming=streaming)

    async def restart(self) -> None:
        server = self.backend.connect()
        assert server is not None
        server.down = True  # type: ignore[attr-defined]  # of the toy
        self.backend.__init__(self.backend.settings)  # type: ignore[misc]  # a new server


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Backend:
    """The toy, found by its entry point."""
    monkeypatch.syspath_prepend(TOY)
    return open_backend(load_settings(SidecarSettings, backend="toy"))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_it_keeps_the_contract(check: Check, backend: Backend, tmp_path: Path) -> None:
    """Each check of the contract suite holds for the toy."""
    await run_check(check, Toy(tmp_path, backend))


def test_a_backend_that_is_not_there_is_refused(backend: Backend) -> None:
    """A name that no entry point has is told with those that there are."""
    with pytest.raises(InvalidSettings, match=r"no backend 'triton': installed are .*, native, .*torchserve, toy"):
        open_backend(load_settings(SidecarSettings, backend="triton"))


@pytest.mark.parametrize("chosen", ["toy", "native"])
def test_settings_of_another_backend_are_refused(chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What only another backend would look at is named, with whose it is, and not passed over."""
    monkeypatch.syspath_prepend(TOY)
    settings = load_settings(SidecarSettings, backend=chosen, torchserve_management="http://127.0.0.1:1")
    with pytest.raises(InvalidSettings, match=f"{chosen} has no use for torchserve_management: .* backend torchserve"):
        open_backend(settings)


def test_a_backend_that_cannot_be_imported_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One whose package lacks something is told with what it lacks."""
    (tmp_path / "half-1.0.dist-info").mkdir()
    (tmp_path / "half-1.0.dist-info" / "entry_points.txt").write_text("[marway.backends]\nhalf = nowhere_at_all:Half\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidSettings, match=r"'half' \(nowhere_at_all:Half\) cannot be imported: No module named"):
        open_backend(load_settings(SidecarSettings, backend="half"))


def test_a_sidecar_serves_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`marway sidecar --backend toy` answers for versions of that backend, says what it is, and refuses others."""
    monkeypatch.setenv("PYTHONPATH", str(TOY))
    registry = Registry(DirectoryStore(tmp_path / "registry"))
    publish = publisher(registry, tmp_path)
    publish("word", data=b"toy", backend="toy")
    publish("intent")
    directories = ("--archive-store", str(tmp_path / "store"), "--runtime-dir", str(tmp_path))
    with (
        sidecar(tmp_path, registry.url, "--backend", "toy", *directories) as url,
        httpx.Client(base_url=url, timeout=60, trust_env=False) as client,
    ):
        status = client.get("/status").json()
        assert (status["backend"], status["serves"], status["server_version"]) == ("toy", ["toy"], "1.0")
        answer = client.post("/predict/word/1.0", content=b"say hello", headers={"content-type": "text/plain"})
        assert (answer.status_code, answer.text) == (200, "hello")
        report = client.post("/models/word/1.0/load").json()
        assert (report["server"], report["server_versions"]) == ("toy", {"toy": "1.0"})
        refused = client.post("/predict/intent/1.0", content=b"x")
        assert refused.status_code == 503
        assert "is for the backend 'torchserve'; this pod serves toy" in refused.json()["detail"]
