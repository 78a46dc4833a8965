"""The tables of `bench_open_inference`, made from its figures alone."""

import statistics
from collections.abc import Sequence
from typing import Any

from documents import Table

__all__ = ["markdown"]

_ABOUT = """\
`make bench-open-inference`: medians of interleaved rounds, with the least and the greatest; ratios are made within a
round. The load generators share the processors with all that they ask. Triton's models are Python's, and do nothing
in the first table.
"""


def markdown(result: dict[str, Any]) -> str:
    """Return both tables."""
    columns = ("request", "over", "clients", "Triton, requests/s", "Marway, requests/s", "Marway ÷ Triton")
    hops = Table(*columns, "p50 ms, both")
    for each in result["overhead"]:
        direct, through = each["Triton"], each["Marway"]
        ratios = [ours / theirs for ours, theirs in zip(through["rate"], direct["rate"], strict=True)]
        p50 = ", ".join(f"{statistics.median(side['p50']):.2f}" for side in (direct, through))
        rates = (_middle(direct["rate"]), _middle(through["rate"]))
        hops.add(each["request"], each["over"], str(each["clients"]), *rates, _middle(ratios, 2), p50)
    batches = Table("32 clients over gRPC", "Triton, rows/s", "Marway, rows/s")
    for each in result["batching"]:
        sides = (each.get(target) for target in ("Triton", "Marway"))
        batches.add(each["how"], *("" if side is None else _middle(side["rows"]) for side in sides))
    return "\n".join([_ABOUT, *hops.lines(), "", *batches.lines(), ""])


def _middle(values: Sequence[float], digits: int = 0) -> str:
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"
