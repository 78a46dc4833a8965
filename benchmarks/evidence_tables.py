"""The page of simulated rollouts, from the figures of `bench_evidence.py`."""

from typing import Any

from documents import Table


def markdown(result: dict[str, Any]) -> str:
    alarms = Table("Harmless candidate, watched for 10 minutes, 300 looks", "accused (bound: 1 %)")
    for name, rate in result["false_alarms"].items():
        alarms.add(name, f"{rate:.2%}")
    good = Table("Good candidate", "rolled back", "promoted", "paused", "promoted after (median)")
    for name, each in result["good"].items():
        after = each["promoted_after_s"]
        ends = (f"{each[end]:.2%}" for end in ("rolled back", "promoted", "paused"))
        good.add(name, *ends, "never" if after is None else f"{after:.0f} s")
    columns = ("rolled back", "within 60 s", "after (median)", "after (95 %)", "promoted", "callers touched")
    bad = Table("Bad candidate", *columns)
    for name, each in result["bad"].items():
        times = ("" if each[key] is None else f"{each[key]:.0f} s" for key in ("median_s", "p95_s"))
        rates = (f"{each[key]:.1%}" for key in ("rolled back", "within_60_s"))
        bad.add(name, *rates, *times, f"{each['promoted']:.1%}", f"{each['touched'] * 1000:.2f} ‰")
    parts = (
        f"{result['runs']:,} simulated rollouts a row, {result['rate']} requests/s, steps 1, 5, 25, 100",
        "of at most 60 s, all answers of the base copied, alpha 0.01 over six guards (errors, latency, finite, shape,",
        "disagreement, quality), a look every two seconds. Seeds are fixed and not those of the tests. What is",
        "simulated are outcomes: how real models, pods and gateways fare is [another benchmark](releases.md).\n",
        *alarms.lines(),
        "",
        *good.lines(),
        "",
        *bad.lines(),
        "",
        "A candidate between what is tolerated and the limit may be promoted, paused or rolled back. *Callers touched*",
        "are those, of all callers of the rollout, who got an answer that the base would have given better.",
    )
    return "\n".join(parts) + "\n"
