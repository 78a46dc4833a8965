"""Looks whenever it is told to: `python -m marway_observations.rollouts --registry URL`, in lines of JSON.

It reads which rollouts to look at and writes what it found, both in `results`, until its input ends. It stays, so that
what reads Parquet is imported once and a look takes a fraction of a second.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from marway.registry import open_registry
from marway_observations.rollouts.results import Look
from marway_observations.store import open_observations

__all__ = ["main"]

_NICE: Final = 10
_KILLED_FIRST: Final = "1000"


def main() -> None:
    """Answer lines until there are no more."""
    parser = argparse.ArgumentParser(prog="python -m marway_observations.rollouts", description=__doc__)
    parser.add_argument("--registry", required=True, help="the registry's URL")
    parser.add_argument("--observations", help="the store with observations and feedback; the registry's otherwise")
    parser.add_argument("--copies", type=Path, help="a directory in which copies of files in S3 stay for the next time")
    parser.add_argument("--disk-bytes", type=int, help="how much these may take, and what DuckDB puts on disk, each")
    given = parser.parse_args()
    os.nice(_NICE)  # predictions come first
    with contextlib.suppress(OSError):  # only Linux has it: when memory is short, this process goes and not the gateway
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    # After that: what reads Parquet takes a while to import.
    from marway_observations.reading.limits import LIMITS
    from marway_observations.rollouts.looking import look

    LIMITS.memory_most_mb = LIMITS.memory_mb  # the gateway beside this process comes first
    if given.disk_bytes is not None:
        LIMITS.disk_bytes = given.disk_bytes
    registry = open_registry(given.registry)
    observations = open_observations(given.registry, given.observations)
    for line in sys.stdin:
        asked = Look.model_validate_json(line)
        print(look(registry, observations, asked.rollouts, copies=given.copies).model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
