"""What docs/backup.md and docs/copying.md show is run in order, and a gateway answers from what was restored."""

from __future__ import annotations

import re
import shlex
from collections.abc import Awaitable, Callable
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from gateway.fakes import FakePod, running
from marway.objects import DirectoryStore
from marway.registry import Registry
from support.in_process import Marway
from support.registry import publish

MakePod = Callable[..., Awaitable[FakePod]]
DOCS = Path(__file__).parents[3] / "docs"


def commands(page: str) -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)
    return [line.removeprefix("$ marway ") for block in blocks for line in block.splitlines()]


@pytest.fixture
def marway(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Marway:
    """The bare install's command."""
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: list[EntryPoint]())
    return Marway(monkeypatch, capsys)


@pytest.mark.parametrize(("page", "before", "after"), [
    ("backup.md", "models", ("restored",)), ("copying.md", "staging", ("production", "elsewhere")),
])  # fmt: skip
@pytest.mark.extended  # two gateways; copies and backups are in tests/core/storage, the commands in tests/ops
async def test_as_shown(
    make_pod: MakePod, marway: Marway, tmp_path: Path, page: str, before: str, after: tuple[str, ...]
) -> None:
    """Each command does what it says, and requests are answered from the registries that come of them."""
    source = Registry(DirectoryStore(tmp_path / before))
    source.create()
    publish(source, tmp_path)
    for command in commands(page):
        said = marway(*shlex.split(command.replace("/tmp/", f"{tmp_path}/")))
        assert said.code == 0, (command, said.err)
    label = {"production": "STG"}
    for name in after:
        registry = Registry(DirectoryStore(tmp_path / name))
        assert list(registry.scrub()) == []
        async with running(await make_pod(), registry=registry) as gateway:
            answer = await gateway.predict(f"/predict/intent/{label.get(name, 'PROD')}")
            assert (answer.status_code, answer.headers["x-model-version"]) == (200, "1.0")
