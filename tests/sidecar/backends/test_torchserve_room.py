"""Archives for which TorchServe's temporary directory has no room, as its adapter tells them from broken ones."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from marway.errors import LoadFailed, RuntimeDown, Unavailable
from marway.wire.runtime import RuntimeInfo, TemporaryRoom
from marway_sidecar.backends.base import ServedModel
from marway_sidecar.backends.torchserve import TorchServeAdapter
from marway_sidecar.backends.torchserve.management import Refused

MIB = 1024 * 1024
NOWHERE = "127.0.0.1:9"


class Server:
    """A management API that refuses the first registrations, and the runtime's socket."""

    def __init__(self, *, refusals: int, free_bytes: int, left: int) -> None:
        self.refusals = refusals
        self.free_bytes = free_bytes
        self.left = left
        self.registered = 0
        self.down = False

    async def register(self, model: ServedModel) -> None:
        self.registered += 1
        if self.registered <= self.refusals:
            raise Refused("Failed to save model: x.mar")

    async def unregister(self, model: ServedModel) -> None:
        return

    async def enter_environment(self, model: ServedModel) -> None:
        return

    async def leave_environment(self, model: ServedModel) -> None:
        return

    async def describe(self, name: str, version: str = "") -> dict[str, object] | None:
        if self.registered <= self.refusals:
            return None
        return {"modelVersion": "1.0", "workers": [{"status": "READY"}]}

    async def remove_leftovers(self) -> TemporaryRoom:
        if self.down:
            raise RuntimeDown("the runtime does not answer")
        left, self.left = self.left, 0
        return TemporaryRoom(directory="/tmp/x/t", free_bytes=self.free_bytes, removed=left)


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    archive = tmp_path / "x.mar"
    with zipfile.ZipFile(archive, "w") as made:
        made.writestr("weights.bin", b"x" * (3 * MIB))
    return ServedModel("mv_X", "some", "1.0", archive, 1, 1.0, 1.0)


def adapter(server: Server, tmp_path: Path) -> TorchServeAdapter:
    info = RuntimeInfo(
        boot_id="one",
        pid=1,
        addresses={
            "inference": f"http://{NOWHERE}",
            "management": f"http://{NOWHERE}",
            "metrics": f"http://{NOWHERE}",
            "grpc_inference": NOWHERE,
            "grpc_management": NOWHERE,
        },
        model_store=tmp_path,
        envelope=1,
        max_request_bytes=1024,
        memory_limit_bytes=1024,
        versions={},
    )
    made = TorchServeAdapter(info, runtime_dir=tmp_path)
    made._management = made._control = server
    return made


async def test_a_full_disk_is_said_by_name_and_is_not_the_models_fault(tmp_path: Path, model: ServedModel) -> None:
    """Where an archive does not fit unpacked, the load is unavailable here, with directory and sizes."""
    server = Server(refusals=9, free_bytes=MIB, left=1)
    with pytest.raises(Unavailable, match=r"disk of /tmp/x/t, .* 1 MiB free and it needs 4 MiB") as raised:
        await adapter(server, tmp_path).load(model)
    assert (raised.value.model, server.left, server.registered) == ("some", 0, 1)


async def test_what_others_left_behind_does_not_fail_a_load(tmp_path: Path, model: ServedModel) -> None:
    """A load that fails for what an earlier one left is tried again once that is removed."""
    server = Server(refusals=1, free_bytes=100 * MIB, left=2)
    found = await adapter(server, tmp_path).load(model)
    assert (found.ready_workers, server.registered, server.left) == (1, 2, 0)


@pytest.mark.parametrize("down", [False, True], ids=["room enough", "no word from the runtime"])
async def test_a_broken_archive_stays_the_models_fault(tmp_path: Path, model: ServedModel, down: bool) -> None:
    """With room enough, or without a word of it, a refused registration is a failed load, tried once."""
    server = Server(refusals=9, free_bytes=100 * MIB, left=0)
    server.down = down
    with pytest.raises(LoadFailed, match="Failed to save model"):
        await adapter(server, tmp_path).load(model)
    assert server.registered == 1
