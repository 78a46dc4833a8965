"""docs/rollouts.md is true: its commands run in their order, with requests coming, over a real gateway and pod."""

from __future__ import annotations

import re
import shlex
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import httpx
import pytest

from marway.registry import open_registry
from support.in_process import Marway
from support.up import Up

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs/rollouts.md").read_text(encoding="utf-8")
COMMANDS = [
    line.removeprefix("$ marway ")
    for block in re.findall(r"^```console\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    for line in block.splitlines()
]
HANDLER = """
def handle(data, context):
    if data is None:
        return None
    return [{"label": "set_alarm" if "wake" in row["data"] else "play_music"} for row in data]
"""
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]


class Asking:
    """Asks for answers all the time, until it ends; counts them by status, version and role."""

    def __init__(self, gateway: str) -> None:
        self.answers: Counter[tuple[int, str, str]] = Counter()
        self._gateway = gateway
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self) -> None:
        with httpx.Client(base_url=self._gateway, timeout=30, trust_env=False) as client:
            while not self._over.wait(0.015):
                answer = client.post("/predict/intent", content="wake me up", headers={"content-type": "text/plain"})
                role = answer.headers.get("x-marway-traffic", "")
                self.answers[answer.status_code, answer.headers.get("x-model-version", ""), role] += 1


@pytest.fixture
def up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Up]:
    """`marway up` in a directory, with intent 1.0 at PROD, and 1.1 and 1.2 that answer the same."""
    monkeypatch.chdir(tmp_path)
    marway = Marway(monkeypatch, capsys)
    Path("handler.py").write_text(HANDLER)
    for version in ("1.0", "1.1", "1.2"):
        Path(version).mkdir()
        Path("handler.py").write_text(f"{HANDLER}\n# {version}\n")
        packed = marway(
            *("pack", "--model-name", "intent", "--version", version, "--handler", "handler.py"),
            *("--example", "wake me up", "--example", "play some jazz", "--export-path", version),
        )
        assert packed.code == 0, packed.err
    with Up(tmp_path / ".marway", "--engine", "native", "1.0/intent.mar") as started:
        for version in ("1.1", "1.2"):
            said = marway("publish", f"{version}/intent.mar", "--registry", started.registry)
            assert said.code == 0, said.err
        yield started


@pytest.mark.extended  # tests/gateway/admin/test_rollout_routes.py has the verbs, over a fake pod
def test_the_page(up: Up, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Each command does what the page says, and no caller sees anything of it but who answered."""
    marway = Marway(monkeypatch, capsys)
    seen: dict[str, str] = {}
    with Asking(up.gateway) as asking:
        for line in COMMANDS:
            said = marway(*shlex.split(line))
            assert said.code == 0, f"{line}: {said.out}{said.err}"
            seen[line] = said.out
    planned = seen["rollout start intent 1.1 --plan"]
    assert "100 %: PROD moves to 1.1" in planned
    assert "started" not in planned
    watched = seen["rollout watch intent"]
    assert re.findall(r"went on at (\d+) % by gateway", watched) == ["50"]
    assert watched.endswith("promoted: PROD is at 1.1: no guard found it worse at 50 %\n")
    assert "running: step 1 of 3, 5 % of requests" in seen["rollout status intent"]
    assert "PROD: 5 % to 1.1 in a rollout that is running" in seen["show intent"]
    assert open_registry(up.registry).state("intent").labels == {"PROD": "1.1"}
    assert {status for status, _, _ in asking.answers} == {200}
    assert asking.answers[200, "1.1", "candidate"] > 0
    assert asking.answers[200, "1.0", "base"] > 0
