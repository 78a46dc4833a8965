"""What `bench_speed.py` measured, as tables and ratios."""

import statistics
from typing import Any

from documents import MARWAY, Table, ratios, spread


def markdown(name: str, found: dict[str, Any], ours: str = MARWAY) -> str:
    """Return a workload's table: ratios are those of ``ours`` to each other target."""
    lines = [f"### {name}: {found['title']}", ""]
    if "error" in found:
        return "\n".join([*lines, f"Failed: {found['error']}", ""])
    table = Table("clients", "target", "requests/s", "p50 ms", "p99 ms", "CPU-s per 1000", f"{ours} / target")
    for count in map(str, found["clients"]):
        for target, measured in found["targets"].items():
            each = measured[count]
            costs = ", ".join(f"{part} {statistics.median(values):.3f}" for part, values in each["cpu"].items())
            ratio = "" if target == ours else spread(ratios(found, target, count, ours=ours), unit="x")
            figures = (f"{statistics.median(each['p50']):.2f}", f"{statistics.median(each['p99']):.1f}")
            table.add(count, target, f"{statistics.median(each['rate']):.0f}", *figures, costs, ratio)
    return "\n".join([*lines, *table.lines(), ""])


def summary(found: dict[str, Any]) -> str:
    """Return a line of median ratios for each number of clients."""
    lines = []
    for count in map(str, found.get("clients", ())):
        others = [target for target in found["targets"] if target != MARWAY]
        said = ", ".join(f"{each} {statistics.median(ratios(found, each, count)):.2f}x" for each in others)
        lines.append(f"Marway at {count} clients: {said}")
    return "\n".join(lines)
