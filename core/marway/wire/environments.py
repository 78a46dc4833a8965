"""What a sidecar asks of a runtime about environments, over `runtime.sock` (`marway.wire.runtime`), with any engine.

`PUT /environments/{server name}` with an `EnvironmentUse` has the environment built that a version's workers are to run
in, where it is not there yet, and answers 204 when it is; to be asked before the version is loaded. `DELETE` of the
same says that the version is unloaded. `GET /environments` answers `EnvironmentList`. What is not done is told as a
`marway.wire.native.Refusal`: 422 when the environment cannot be built, 507 when it finds no room.
"""

from __future__ import annotations

from marway.environments.lock import EnvironmentLock
from marway.stored import Frozen

__all__ = ["EnvironmentList", "EnvironmentState", "EnvironmentUse", "wheel_file"]


class EnvironmentUse(Frozen):
    """A version and what it requires.

    Attributes:
        name, version: What people call it, and what its archive's manifest says.
        lock: Its requirements; their wheels are in the model store (`wheel_file`).
    """

    name: str
    version: str
    lock: EnvironmentLock


class EnvironmentState(Frozen):
    """An environment that is there.

    Attributes:
        digest: Of the lock that it was built from.
        size_bytes: What it takes on the disk.
        used_by: The versions that are in it, by their names in the model server.
    """

    digest: str
    size_bytes: int
    used_by: tuple[str, ...] = ()


class EnvironmentList(Frozen):
    """All environments that are there, the one used last at the end; what they take, and may take, in bytes."""

    environments: tuple[EnvironmentState, ...] = ()
    size_bytes: int = 0
    limit_bytes: int = 0


def wheel_file(sha256: str) -> str:
    """Return a wheel's name in the model store."""
    return f"{sha256}.whl"
