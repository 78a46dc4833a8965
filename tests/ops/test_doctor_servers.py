"""`marway doctor` looks at the model servers that Marway's runtime does not start, and changes nothing there."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, cast

import pytest

from marway_ops.cli.doctor import examine
from marway_ops.shell.output import Finding
from marway_sidecar.backends.examine import of_versions
from marway_sidecar.backends.model_directory import hold_directory
from marway_sidecar.backends.open_inference.look import of_repository
from marway_sidecar.backends.open_inference.wire import Indexed, Refused
from support.cli import marway, refused

TOY = Path(__file__).parents[1] / "sidecar" / "backends" / "toy"


class _Server(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.send_header("server", "Stand-in/1.0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[str]:
    """A server that says that it is well."""
    with HTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever, name="stand-in")
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def found(tmp_path: Path, *engines: str, config: Path | None = None) -> list[Finding]:
    findings = examine(home=tmp_path, port=0, registry=None, engines=engines, config=config)
    return [each for each in findings if each.check in engines]


def test_what_a_backend_lacks_is_a_problem_of_its_pod(tmp_path: Path) -> None:
    """Settings that are missing are named with the pod, and where it is written what it needs."""
    (finding,) = found(tmp_path, "native", "http")
    assert finding.level == "problem"
    assert finding.found.startswith("pod-1: the backend http needs http_predict")
    assert "docs/backends.md" in finding.advice


def test_a_server_that_does_not_answer_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its address is set and nobody listens, that is said with the address."""
    monkeypatch.setenv("MARWAY_SIDECAR_HTTP_PREDICT", "http://127.0.0.1:9/{model}/{version}")
    (finding,) = found(tmp_path, "http")
    assert (finding.level, "http://127.0.0.1:9" in finding.found) == ("problem", True)


def test_a_server_that_answers_is_well_and_left_as_it_is(tmp_path: Path, server: str) -> None:
    """Who it is is said; the directory that it shares with a sidecar is looked at, and nothing in it is removed."""
    models, config = tmp_path / "models", tmp_path / "marway.toml"
    (models / ".marway").mkdir(parents=True)
    (models / "left-by-a-sidecar").mkdir()
    config.write_text(
        f'[up]\n[pods.pod-0]\nhttp_predict = "{server}/{{server_name}}"\nhttp_health = "{server}"\n'
        f'http_models = "{models}"\nhttp_load = "{server}/load"\nhttp_unload = "{server}/unload"\n'
        f'http_ready = "{server}/{{server_name}}"\n'
    )
    (finding,) = found(tmp_path, "http", config=config)
    assert (finding.level, finding.found.startswith("pod-0: http ")) == ("ok", True), finding
    assert {each.name for each in models.iterdir()} == {".marway", "left-by-a-sidecar"}
    config.write_text(config.read_text().replace(str(models), str(tmp_path / "other")))
    assert [each.level for each in found(tmp_path, "http", config=config)] == ["ok", "warning"]
    assert not (tmp_path / "other").exists()


def test_only_what_pods_need_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods that Marway's runtime does not serve need neither torch nor Java."""
    monkeypatch.syspath_prepend(TOY)
    checks = {each.check for each in examine(home=tmp_path, port=0, registry=None, engines=("toy",))}
    assert not checks & {"torch", "torchserve", "Java"}
    assert "toy" in checks


def test_a_version_that_was_not_tried_is_a_warning() -> None:
    """Another minor version than the tests run is said, with what proves one's models on it."""
    known = {"triton": "2.51.0", "mlserver": "1.7.1"}
    assert of_versions(known, {"triton": "2.51.3"}) == []
    (remark,) = of_versions(known, {"mlserver": "1.6.0"})
    assert (remark.level, remark.found) == ("warning", "mlserver 1.6.0 was not tried with Marway, 1.7.1 was")


class _Index:
    """A server's word on its model repository."""

    def __init__(self, **states: str) -> None:
        self._states = states

    async def index(self, *, timeout_s: float) -> Mapping[str, Sequence[Indexed]]:
        if not self._states:
            raise Refused(404, "no such route")
        return {name: [Indexed("1", state, "")] for name, state in self._states.items()}


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ({"of-triton": "READY", "named": "UNAVAILABLE"}, None),
        ({"of-triton": "READY", "named": "READY", "elsewhere": "UNAVAILABLE"}, None),
        ({"of-triton": "READY"}, "it does not list in-a-directory, which is there"),
        ({"of-triton": "READY", "named": "", "other": "READY"}, "it has other loaded, which is not there"),
        ({}, "it has no model repository that can be asked: no such route"),
    ],
)
async def test_the_repository_has_to_be_that_of_the_server(
    tmp_path: Path, states: dict[str, str], says: str | None
) -> None:
    """What the server lists and what lies in the directory is compared; nothing is written there."""
    (tmp_path / "of-triton" / "1").mkdir(parents=True)
    (tmp_path / "in-a-directory").mkdir()
    (tmp_path / "in-a-directory" / "model-settings.json").write_text('{"name": "named"}')
    (tmp_path / "notes").mkdir()
    remarks = await of_repository(cast("Any", _Index(**states)), tmp_path, timeout_s=1)
    assert [each.level for each in remarks] == (["problem"] if says else [])
    assert all(str(says) in each.found for each in remarks)


def test_a_directory_is_one_sidecars_alone(tmp_path: Path) -> None:
    """A second sidecar on the same directory ends at once and says why: it would undo what the first one does."""
    shared = {
        "MARWAY_SIDECAR_HTTP_PREDICT": "http://127.0.0.1:9/{server_name}",
        "MARWAY_SIDECAR_HTTP_MODELS": str(tmp_path),
    }
    more = {f"MARWAY_SIDECAR_HTTP_{name}": "http://127.0.0.1:9/{server_name}" for name in ("LOAD", "UNLOAD", "READY")}
    hold_directory(tmp_path)
    hold_directory(tmp_path)
    done = marway("sidecar", "--backend", "http", "--port", "0", "--registry", tmp_path.as_uri(), **shared, **more)
    assert f"{tmp_path}, which is shared with the model server, is used by another sidecar" in refused(done)
