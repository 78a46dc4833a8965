"""Old servers to take over: real ones, with what teams have beside them, and requests of their clients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from support.old_servers.open_inference import old_mlserver, old_triton
from support.old_servers.server import OldServer
from support.old_servers.torchserve import old_kserve, old_modelmesh, old_torchserve

__all__ = ["OLD_SERVERS", "OldServer"]

OLD_SERVERS: Mapping[str, Callable[[Path], AbstractContextManager[OldServer]]] = {
    "torchserve": old_torchserve,
    "kserve": old_kserve,
    "modelmesh": old_modelmesh,
    "triton": old_triton,
    "mlserver": old_mlserver,
}
