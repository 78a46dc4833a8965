"""What handlers see of the environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway.worker.environment import handler_environment


def test_handlers_see_no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials and Marway's own variables stay outside; what computing needs goes in."""
    for name in ("AWS_SECRET_ACCESS_KEY", "MARWAY_REGISTRY", "GITHUB_TOKEN", "TS_CONFIG_FILE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    passed = handler_environment(tmp_path)
    assert "secret" not in passed.values()
    assert passed["CUDA_VISIBLE_DEVICES"] == "1"
    assert passed["TMPDIR"] == passed["TEMP"] == passed["TMP"] == str(tmp_path)


def test_handlers_see_what_is_allowed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Variables that the setting names go in, and no others."""
    for name in ("HF_HOME", "HF_TOKEN"):
        monkeypatch.setenv(name, "a value")
    passed = handler_environment(tmp_path, allowed=["HF_HOME", "NOT_SET"])
    assert passed["HF_HOME"] == "a value"
    assert not {"HF_TOKEN", "NOT_SET"} & passed.keys()
