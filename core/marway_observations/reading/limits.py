"""What this process may take of memory and disk for reading observations: others share its container.

A container whose memory runs out is ended with all that is in it, and one whose disk does is evicted, so whoever reads
beside a gateway stays within what is left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from marway.errors import InvalidInput
from marway.process.cgroups import cgroup_room

__all__ = ["LIMITS", "Limits", "memory_mb"]

_MIB: Final = 1024 * 1024
_SPARE_MB: Final = 64
"""Left for all else, here and in the processes beside this one."""
_LEAST_MB: Final = 64
"""With less DuckDB gets nowhere."""


@dataclass(slots=True)
class Limits:
    """Set before the first file is read.

    Attributes:
        memory_mb: What DuckDB may take of memory, in MiB, where that much is left.
        memory_most_mb: What it may take where rows are too large for that.
        disk_bytes: What may be copied from S3, and what DuckDB may put into its temporary directory, each.
    """

    memory_mb: int = 256
    memory_most_mb: int = 1024
    disk_bytes: int = 20 * 1024**3


LIMITS: Final = Limits()
"""Those of this process."""


def memory_mb(wanted_mb: int) -> int:
    """Return how much memory of ``wanted_mb`` may be taken, in MiB: what is left to the container, at most.

    Raises:
        InvalidInput: Too little is left.
    """
    room = cgroup_room()
    if room is None:
        return wanted_mb
    left_mb = room.left_bytes(enough=(wanted_mb + _SPARE_MB) * _MIB) // _MIB - _SPARE_MB
    if left_mb < min(_LEAST_MB, wanted_mb):
        raise InvalidInput(
            f"{max(0, left_mb + _SPARE_MB)} MiB of memory are left here, which is too little to read observations: "
            f"raise the memory limit, best by {wanted_mb} MiB, or do it elsewhere"
        )
    return min(wanted_mb, left_mb)
