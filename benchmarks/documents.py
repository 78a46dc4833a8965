"""What a benchmark leaves behind: one JSON document with every round's figures, from which reports are made."""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import machine

MARWAY = "Marway"
_STARTED = time.monotonic()


class Table:
    """A table in Markdown."""

    def __init__(self, *columns: str) -> None:
        self._rows: list[Sequence[str]] = [columns, ["---"] * len(columns)]

    def add(self, *cells: str) -> None:
        self._rows.append(cells)

    def lines(self) -> list[str]:
        return [f"| {' | '.join(row)} |" for row in self._rows]


def add_output(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the document goes."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every round's figures to a file")


def write(args: argparse.Namespace, part: str, result: dict[str, Any]) -> None:
    """Write a benchmark's document, if that was asked for; of a run before it nothing stays."""
    if args.json is None:
        return
    found = {
        "part": part,
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *_without_output(sys.argv[1:])]),
        "machine": machine.describe(),
        "took_s": round(time.monotonic() - _STARTED, 1),
        "result": result,
    }
    args.json.parent.mkdir(parents=True, exist_ok=True)
    unfinished = args.json.with_suffix(".part")
    unfinished.write_text(json.dumps(_rounded(found), indent=1) + "\n")
    unfinished.replace(args.json)


def spread(values: Sequence[float], digits: int = 2, unit: str = "") -> str:
    """Return a median, with its unit, and the least and the greatest."""
    least, most = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return f"{statistics.median(values):.{digits}f}{unit} ({least} to {most})"


def _without_output(arguments: Sequence[str]) -> list[str]:
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument != "--json":
            kept.append(argument)
        skip = argument == "--json"
    return kept


def _rounded(value: Any) -> Any:
    """Return a document whose numbers have six digits: more would only be noise in the repository."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {str(key): _rounded(each) for key, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list | tuple) else value


def ratios(found: dict[str, Any], other: str, clients: str, figure: str = "rate", *, ours: str = MARWAY) -> list[float]:
    """Return how many times a figure of ``other`` that of ``ours`` is, round by round."""
    mine, theirs = (found["targets"][name][clients][figure] for name in (ours, other))
    return [one / another for one, another in zip(mine, theirs, strict=True)]
