"""Real old servers taken over: found, asked, published, served by Marway's own pods, compared, told in a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marway.registry import open_registry
from support.cli import marway
from support.every import usual
from support.old_servers import OLD_SERVERS

# Real servers of others, and pods; the other tests of this folder have each part of it without.
pytestmark = [pytest.mark.extended, pytest.mark.timeout(300)]

EQUAL = {"kserve": 7, "mlserver": 5, "modelmesh": 6, "triton": 12}
"""By source, how many requests there are, all of which are answered the same; TorchServe's are below."""


@pytest.mark.parametrize("name", usual("torchserve", more=sorted(EQUAL)))  # docs/adopt has what came of all five
def test_a_real_server_is_taken_over(name: str, tmp_path: Path) -> None:
    """Answers are equal but for the status of a handler's exception; times are measured, golden examples stored."""
    registry = (tmp_path / "registry").as_uri()
    with OLD_SERVERS[name](tmp_path) as old:
        flags = ["--from", old.url, "--requests", str(old.requests), *old.arguments]
        flags += ["--registry", registry, "--create-registry", "--report", str(tmp_path / "report.json")]
        flags += ["--engine", "native"]  # its pod is up sooner than one of TorchServe
        done = marway("adopt", str(old.source), *flags, **old.environment)
    report = json.loads((tmp_path / "report.json").read_text())
    models = report["comparison"]["models"]
    if name == "torchserve":
        assert done.returncode == 1, done.stderr
        assert "1 of 11 requests are not answered the same" in done.stderr
        assert "status 503 was expected, 500 came" in done.stderr
        assert [(each["requests"], each["equal"]) for each in models] == [(7, 6), (1, 1), (3, 3)]
        assert [each["golden_sha256"] is None for each in _records(registry)] == [False] * 3
    else:
        assert done.returncode == 0, done.stderr
        assert sum(each["equal"] for each in models) == EQUAL[name] == sum(each["requests"] for each in models)
    assert all(each["timing"]["pairs"] >= 10 for each in models)


def _records(registry: str) -> list[dict[str, object]]:
    opened = open_registry(registry)
    versions = [("sentiment", "1.0"), ("shout", "1.0"), ("shout", "2.0")]
    return [opened.record(*each).model_dump() for each in versions]
