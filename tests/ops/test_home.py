"""One home, one `marway up`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marway.errors import InvalidSettings
from marway_ops.up.home import Home


def test_a_home_is_held_by_one(tmp_path: Path) -> None:
    """A second holder is refused with the first one's process id, and let in once the first has gone."""
    home = Home(tmp_path / "home")
    with home.held(), pytest.raises(InvalidSettings, match=f"pid {os.getpid()}"), home.held():
        pass
    with home.held():
        pass


def test_the_ready_file_goes_with_its_holder(tmp_path: Path) -> None:
    """What says that it serves is gone when it does not serve any more."""
    home = Home(tmp_path)
    with home.held():
        home.write_ready({"gateway": "http://127.0.0.1:1"})
        assert home.ready_file.exists()
    assert not home.ready_file.exists()
