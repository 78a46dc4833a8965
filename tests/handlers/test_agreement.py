from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.trained import EXAMPLES, in_torchserve, served, trained

SAMPLES = EXAMPLES / "digits" / "samples"
ROWS: dict[str, list[dict[str, Any]]] = {
    "intent": [{"data": "wake me up"}, {"data": b""}, {"text": b"play jazz"}, {"data": {"text": "will it rain"}}, {}],
    "digits": [
        {"data": json.loads((SAMPLES / "7.json").read_text())},
        {"data": bytearray((SAMPLES / "4.png").read_bytes())},
        {"data": "seven"},
    ],
    "tensor": [{"data": [1, 2, 3, 4, 5, 6]}, {"data": [1]}, {"data": bytearray(24)}],
    "embedding": [{"data": "wake me up"}, {"data": 7}, {"body": b"play jazz"}],
}


@pytest.mark.parametrize("name", ROWS)
def test_the_test_kit_agrees_with_torchserves_own_loader(
    name: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A shipped handler answers alike, one by one and in a batch, in our kit and loaded by TorchServe's own code."""
    if name in ("intent", "digits"):
        directory = trained(name, tmp_path_factory).directory
    else:
        directory = Path(request.getfixturevalue(f"{name}_directory"))
    rows = ROWS[name]
    with in_torchserve(directory) as theirs, served(directory) as ours:
        assert type(theirs.handler).__name__ == type(ours.handler).__name__
        for batch in ([row] for row in rows):
            assert ours.ask(*batch) == theirs.ask(*batch)
        assert ours.ask(*rows) == theirs.ask(*rows)
        known = {name for name in dir(theirs.service.context) if not name.startswith("_")}
        assert known <= set(dir(ours.loaded.context))
        assert theirs.service.context.system_properties.keys() == ours.loaded.context.system_properties.keys()
