"""Looks once: `python -m marway_observations.evaluate quality --registry URL` prints one JSON document.

Whatever is written to stderr last says why it ended otherwise than with status 0.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from marway.errors import MarwayError
from marway.registry import open_registry
from marway_observations.store import open_observations

__all__ = ["main"]

_NICE: Final = 10
_KILLED_FIRST: Final = "1000"


def main() -> None:
    """Evaluate all models of a registry once."""
    parser = argparse.ArgumentParser(prog="python -m marway_observations.evaluate", description=__doc__)
    parser.add_argument("kind", choices=["quality", "drift"])
    parser.add_argument("--registry", required=True, help="the registry's URL")
    parser.add_argument("--observations", help="the store with observations and feedback; the registry's otherwise")
    parser.add_argument("--copies", type=Path, help="a directory in which copies of files in S3 stay for the next time")
    parser.add_argument("--disk-bytes", type=int, help="how much these may take, and what DuckDB puts on disk, each")
    given = parser.parse_args()
    os.nice(_NICE)  # predictions come first
    with contextlib.suppress(OSError):  # only Linux has it: when memory is short, this process goes and not the gateway
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    # After that: what reads Parquet takes a while to import.
    from marway_observations.evaluate.evaluating import evaluate
    from marway_observations.events import EventLog
    from marway_observations.reading.limits import LIMITS

    LIMITS.memory_most_mb = LIMITS.memory_mb  # the gateway beside this process comes first
    if given.disk_bytes is not None:
        LIMITS.disk_bytes = given.disk_bytes
    try:
        registry = open_registry(given.registry)
        found = evaluate(
            given.kind,
            registry,
            open_observations(given.registry, given.observations),
            EventLog(registry.store),
            copies=given.copies,
        )
    except MarwayError as exc:
        print(" ".join(exc.message.split()), file=sys.stderr)
        sys.exit(1)
    print(found.model_dump_json())


if __name__ == "__main__":
    main()
