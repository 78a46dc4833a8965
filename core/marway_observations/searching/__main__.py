"""Answers one question: `python -m marway_observations.searching --registry URL` reads it from stdin, as JSON.

It prints one JSON document: `{"found": …}`, or `{"problem": …}` with what the person who asked is told.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from marway.errors import InvalidInput, MarwayError, clip
from marway.registry import open_registry
from marway.stored import Frozen
from marway.wire.problems import problem_of
from marway_observations.searching.questions import Explain, Figures, Search
from marway_observations.store import open_observations

__all__ = ["main"]

_NICE: Final = 10
_KILLED_FIRST: Final = "1000"


def main() -> None:
    """Answer one question and end."""
    parser = argparse.ArgumentParser(prog="python -m marway_observations.searching", description=__doc__)
    parser.add_argument("what", choices=["search", "explain", "figures"])
    parser.add_argument("--registry", required=True, help="the registry's URL")
    parser.add_argument("--observations", help="the store with observations and feedback; the registry's otherwise")
    parser.add_argument(
        "--disk-bytes", type=int, help="how much copies of files in S3 may take, and what DuckDB spills"
    )
    given = parser.parse_args()
    os.nice(_NICE)  # predictions come first
    with contextlib.suppress(OSError):  # only Linux has it: when memory is short, this process goes and not the gateway
        Path("/proc/self/oom_score_adj").write_text(_KILLED_FIRST)
    # After that: what reads Parquet takes a while to import.
    from marway_observations.reading.limits import LIMITS
    from marway_observations.searching.figures import figures
    from marway_observations.searching.searching import explain, search

    LIMITS.memory_most_mb = LIMITS.memory_mb  # the gateway beside this process comes first
    if given.disk_bytes is not None:
        LIMITS.disk_bytes = given.disk_bytes
    try:
        registry = open_registry(given.registry)
        store = open_observations(given.registry, given.observations)
        asked = sys.stdin.read()
        found: Frozen
        match given.what:
            case "search":
                found = search(registry, store, Search.model_validate_json(asked))
            case "explain":
                found = explain(registry, store, Explain.model_validate_json(asked))
            case _:
                found = figures(registry, store, Figures.model_validate_json(asked))
    except ValidationError as exc:
        first = exc.errors(include_url=False, include_input=False)[0]
        problem = InvalidInput(f"{'.'.join(map(str, first['loc']))}: {clip(first['msg'], 200)}")
        print(f'{{"problem": {problem_of(problem)[0].model_dump_json()}}}')
    except MarwayError as exc:
        print(f'{{"problem": {problem_of(exc)[0].model_dump_json()}}}')
    else:
        print(f'{{"found": {found.model_dump_json()}}}')


if __name__ == "__main__":
    main()
