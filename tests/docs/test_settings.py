"""Every setting is explained where people look for it."""

from __future__ import annotations

import re
from pathlib import Path

from marway_sidecar.settings import SidecarSettings

DOCS = Path(__file__).parents[2] / "docs"


def test_every_setting_of_the_sidecar_is_in_its_table() -> None:
    """docs/sidecar.md has a row for each setting there is, and for none that there is not."""
    rows = [line.split("|")[1] for line in (DOCS / "sidecar.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([a-z_0-9]+)`", row)}
    fields = set(SidecarSettings.model_fields)
    assert fields <= named
    settings_rows = (DOCS / "sidecar.md").read_text().partition("## Settings")[2]
    assert set(re.findall(r"^\| `([a-z_0-9]+)`", settings_rows, re.MULTILINE)) <= fields
