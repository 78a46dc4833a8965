"""Which versions a server has that Marway does not manage, by what servers say (tests/backends has the real ones)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from marway.errors import LoadFailed
from marway_archiver import pack_bundle
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.open_inference.others import found_there
from marway_sidecar.backends.open_inference.wire import Configured, Indexed, Wire


class Says:
    """What a server answers: metadata by the number that is asked for, and its list."""

    def __init__(self, metadata: Mapping[str, dict[str, Any]], *versions: str) -> None:
        self._metadata = metadata
        self._versions = versions

    async def metadata(self, called: str, number: str) -> Mapping[str, Any] | None:
        return self._metadata.get(number)

    async def index(self) -> Mapping[str, Sequence[Indexed]]:
        return {"theirs": [Indexed(version, "READY", "") for version in self._versions]}

    async def configured(self, called: str, number: str) -> Configured:
        return Configured()


def asked(scratch: Path, version: str) -> ServedModel:
    packed = pack_bundle(model_name="theirs", version=version, backend="open-inference", export_path=scratch)
    return ServedModel("mv_1", "theirs", version, packed.path, 1, 10.0, 10.0)


@pytest.mark.parametrize(
    ("metadata", "versions"),
    [
        ({"1": {"versions": ["1"]}, "": {"versions": ["1"]}}, ("1",)),  # as Triton
        ({"1": {}, "": {}}, ("1",)),  # as MLServer, whose metadata says no versions
    ],
)
async def test_another_version_is_refused(
    metadata: Mapping[str, dict[str, Any]], versions: Sequence[str], tmp_path: Path
) -> None:
    """The version that the server has is found; of another one is said which it has."""
    wire = cast("Wire", Says(metadata, *versions))
    assert (await found_there(wire, asked(tmp_path, "1"))).number == "1"
    (tmp_path / "other").mkdir()
    with pytest.raises(LoadFailed, match=r"no version 2 of 'theirs': it has 1$"):
        await found_there(wire, asked(tmp_path / "other", "2"))


async def test_a_server_that_knows_no_versions_serves_what_it_has(tmp_path: Path) -> None:
    """Where neither metadata nor list say a version, the model is what the record means."""
    wire = cast("Wire", Says({"": {}}, ""))
    assert (await found_there(wire, asked(tmp_path, "7"))).number == ""
