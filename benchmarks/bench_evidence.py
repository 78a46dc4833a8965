"""How often a rollout's guards are wrong, and how soon they are right: thousands of simulated rollouts.

`make bench-evidence`, or `python benchmarks/bench_evidence.py --runs 500`. It needs no server: outcomes are drawn,
counted and judged by what gateways judge with. Looks are every two seconds, as theirs are; what is worked out exactly,
for looks after every outcome, is in tests/gateway/traffic/evidence. `--write` writes benchmarks/results/evidence.md and
its figures.
"""

import argparse
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import evidence_tables
import report
from documents import add_output, write
from evidence_runs import LIMITS, Candidate, Outcome, fixed_sample, live_only, many_gateways, rollout, watched

from marway_gateway.traffic.evidence.judging import tolerated

RESULTS = Path(__file__).parent / "results"
RATE = 100
SEED = 20_261_130
WATCHED_S = 600
HARMLESS = {guard: Candidate({guard: tolerated(guard, limit)}) for guard, limit in LIMITS.items()}
"""As bad as a guard tolerates (`errors`, `finite` and `quality`: a quarter of the limit): the hardest candidates that
no guard may accuse."""
CHANGES = {
    "fails for 1 % of inputs (the limit, four times what is tolerated)": Candidate({"errors": 0.01}),
    "fails for 2 % of inputs": Candidate({"errors": 0.02}),
    "fails for 5 % of inputs": Candidate({"errors": 0.05}),
    "fails for every input": Candidate({"errors": 1.0}),
    "NaN in 2 % of answers": Candidate({"finite": 0.02}),
    "another shape in 5 % of answers": Candidate({"shape": 0.05}),
    "twice as slow": Candidate({"latency": 0.88, "tail": 0.5}),
    "5 % of answers very slow": Candidate({"latency": 0.045, "tail": 0.05}),
    "decides otherwise for 20 %": Candidate({"disagreement": 0.2}),
    "3 % of accuracy lost (truth of every answer)": Candidate({"quality": 0.03}),
    "5 % of accuracy lost (truth of every answer)": Candidate({"quality": 0.05}),
    "fails for 20 %, from the second step on": Candidate({"errors": 0.2}, from_step=1),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000, help="simulated rollouts a row (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="write the figures into benchmarks/results, and the page")
    add_output(parser)
    args = parser.parse_args()
    result = measure(args.runs)
    print(evidence_tables.markdown(result))
    if args.write:
        args.json = RESULTS / "data" / "evidence.json"
    write(args, "evidence", result)
    if args.write:
        report.write(RESULTS)
    return 0


def measure(runs: int) -> dict[str, Any]:
    seeds = range(SEED, SEED + runs)
    with ProcessPoolExecutor(os.cpu_count()) as pool:

        def each(function: Any) -> list[Any]:
            return list(pool.map(function, seeds, chunksize=max(1, runs // 40)))

        false = {guard: each(partial(watched, one, RATE, WATCHED_S)) for guard, one in HARMLESS.items()}
        return {
            "runs": runs,
            "rate": RATE,
            "false_alarms": {
                **{
                    f"{guard} as bad as is tolerated, 1 % of callers, all copied": share(found)
                    for guard, found in false.items()
                },
                "errors as bad as is tolerated: three gateways, each two seconds behind the others, any of them": share(
                    each(partial(many_gateways, HARMLESS["errors"], RATE, WATCHED_S))
                ),
                "equal, no copies, 5 % of callers, both fail for 20 % of inputs at times": share(
                    each(partial(live_only, RATE, WATCHED_S))
                ),
                "equal, judged by a z-test (p < 0.01) at each look, for comparison": share(
                    each(partial(fixed_sample, RATE, WATCHED_S))
                ),
            },
            "good": {
                "equal to the base": summary(each(partial(rollout, Candidate({}), RATE))),
                "5 % of answers 1.4 times as slow, 3 % decide otherwise": summary(
                    each(partial(rollout, Candidate({"latency": 0.05, "disagreement": 0.03}), RATE))
                ),
            },
            "bad": {name: summary(each(partial(rollout, one, RATE))) for name, one in CHANGES.items()},
        }


def share(alarms: Sequence[bool]) -> float:
    return sum(alarms) / len(alarms)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return how runs ended, when, and how many callers got a worse answer than they would have."""
    stopped = sorted(each.seconds for each in outcomes if each.end == "rolled back")
    promoted = [each.seconds for each in outcomes if each.end == "promoted"]
    return {
        **{end: share([each.end == end for each in outcomes]) for end in ("rolled back", "promoted", "paused")},
        "within_60_s": share([each.end == "rolled back" and each.seconds <= 60 for each in outcomes]),
        "median_s": statistics.median(stopped) if stopped else None,
        "p95_s": stopped[int(len(stopped) * 0.95)] if stopped else None,
        "promoted_after_s": statistics.median(promoted) if promoted else None,
        "touched": statistics.mean(each.touched / each.calls for each in outcomes),
    }


if __name__ == "__main__":
    raise SystemExit(main())
