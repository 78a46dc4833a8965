from __future__ import annotations

from datetime import timedelta
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from marway.records import utc_now
from marway.registry import Registry
from support.in_process import Marway
from support.observations import feedback, observation, write_feedback, write_observations
from support.registry_fixtures import directory, publish, registry, store_url

__all__ = ["directory", "publish", "registry", "store_url"]


@pytest.fixture
def marway(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], registry: Registry, tmp_path: Path
) -> Marway:
    """The command with the verbs of observations, the registry in its environment, in an empty directory."""
    verbs = EntryPoint("observations", "marway_observations.cli:register", "marway.verbs")
    monkeypatch.setattr("marway_ops.cli.main.entry_points", lambda group: [verbs])
    monkeypatch.setenv("MARWAY_REGISTRY", registry.url)
    monkeypatch.setenv("COLUMNS", "200")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return Marway(monkeypatch, capsys)


@pytest.fixture
def served(publish, registry: Registry) -> Registry:
    """intent 1.0 and 1.1: an hour ago ten predictions each, the first six right, of which the last has no truth yet."""
    at = utc_now() - timedelta(hours=1)
    for version in ("1.0", "1.1"):
        publish("intent", version)
        rows = [
            observation(
                {"label": "a"},
                input={"text": f"number {place}"},
                version=version,
                at=at + timedelta(seconds=place),
                request_id=f"request-{version}-{place}",
            )
            for place in range(10)
        ]
        write_observations(registry.store, "intent", rows)
        write_feedback(
            registry.store,
            [
                feedback("a" if place < 6 else "b", prediction_id=row["prediction_id"], correct=place < 6, at=utc_now())
                for place, row in enumerate(rows[:9])
            ],
        )
    return registry
