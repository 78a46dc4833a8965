"""The golden inputs that a pod finds in what was published."""

from __future__ import annotations

from pathlib import Path

import pytest

from marway.errors import InvalidArchive
from marway_archiver import Example, pack_bundle
from marway_sidecar.lifecycle.golden_check import _golden_inputs


def test_a_bundle_carries_them_as_a_mar_does(tmp_path: Path) -> None:
    """Each as its client would send it, and no more than are wanted."""
    examples = [Example([1, 2], 3), Example("text", "answer")]
    found = pack_bundle(model_name="m", version="1", backend="http", export_path=tmp_path, examples=examples)
    assert [(each.data, each.content_type) for each in _golden_inputs(found.path, None)] == [
        (b"[1,2]", "application/json"),
        (b"text", "text/plain"),
    ]
    assert len(_golden_inputs(found.path, 1)) == 1


def test_one_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """Without a traceback of the zip library."""
    path = tmp_path / "x.bundle"
    path.write_bytes(b"no zip")
    with pytest.raises(InvalidArchive, match=r"the golden inputs of x\.bundle cannot be read"):
        _golden_inputs(path, None)
