"""What `bench_peers.py` measured, as tables and ratios."""

import statistics
from typing import Any

from documents import MARWAY, Table, ratios, spread
from workloads import TINY

CLIENTS = (1, 32)


def markdown(result: dict[str, Any]) -> str:
    """Return the table of all servers, and who is ahead."""
    lines = [
        f"`make bench-peers`: {TINY.title}, one worker each, {result['rounds']} interleaved rounds of "
        f"{result['seconds']} s; medians, and of ratios the least and the greatest too. Marway: gateway, sidecar and",
        "TorchServe, with request ids, metrics and access log. Pinned: " + ", ".join(result["versions"]) + ".",
        "",
    ]
    columns = ("clients", "server", "requests/s", "p50 ms", "p99 ms", "CPU-s per 1000")
    table = Table(*columns, "Marway's requests/s", "Marway is")
    for count in map(str, CLIENTS):
        for name, figures in result["targets"].items():
            each = {figure: statistics.median(values) for figure, values in figures[count].items()}
            said = (f"{each['rate']:.0f}", f"{each['p50']:.2f}", f"{each['p99']:.1f}", f"{each['cpu']:.3f}")
            if name == MARWAY:
                table.add(count, name, *said, "", "")
                continue
            faster = ratios(result, name, count, "rate")
            table.add(count, name, *said, spread(faster, unit="x"), verdict(result, name, count))
    lines += table.lines()
    lines += ["", *(f"- {name} could not be measured: {why}" for name, why in result["failures"].items())]
    return "\n".join(lines) + "\n"


def verdict(result: dict[str, Any], name: str, clients: str) -> str:
    """Return whether Marway is ahead in requests/s and in p99."""
    faster = statistics.median(ratios(result, name, clients, "rate")) > 1
    sooner = statistics.median(ratios(result, name, clients, "p99")) < 1
    if faster:
        return "ahead" if sooner else "**ahead but for p99**"
    return "**ahead in p99 alone**" if sooner else "**behind**"
