"""What Thompson's policy costs and gains, simulated: how many requests the worse version gets, against dividing evenly.

`make bench-bandit`, or `python benchmarks/bench_bandit.py --runs 300`. Scores come while the truth about both versions
is known to the simulation alone: a candidate that is better, worse or the same, at the same scores all day or with
scores that rise over it. Marway's policy is the gateway's own code, moved once a minute as it is there. Beside it:
half and half; Thompson's sampling anew for each minute without floor and cap, on pooled scores as textbooks have it.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numpy as np
from documents import add_output, write

from marway.records import utc_now
from marway.traffic import Traffic
from marway_gateway.traffic.bandit import chance_better, percent_of
from marway_observations.rollouts.results import StepCounts

SEED: Final = 20_261_130
MINUTES: Final = 120
SCORES: Final = 240
"""Scores a minute: four a second."""
START: Final = 10.0
FLOOR, CAP = 5.0, 95.0


class World(NamedTuple):
    """What is true: the base's mean score, the candidate's, and by how much both rise over the time."""

    name: str
    base: float
    candidate: float
    rise: float = 0.0


WORLDS: Final = (
    World("candidate better by 0.05", 0.60, 0.65),
    World("candidate better by 0.01", 0.60, 0.61),
    World("the same", 0.60, 0.60),
    World("candidate worse by 0.05", 0.60, 0.55),
    World("candidate worse by 0.02, scores rise by 0.3", 0.45, 0.43, 0.3),
    World("the same, scores rise by 0.3", 0.45, 0.45, 0.3),
)


class Run(NamedTuple):
    """What became of one simulated rollout: percents by minute, and how often they were changed."""

    percents: list[float]
    moves: int


Policy = Callable[[list[StepCounts], float, np.random.Generator], float]


def marway(strata: list[StepCounts], percent: float, _: np.random.Generator) -> float:
    now = utc_now()
    traffic = Traffic(
        percent=percent, floor=FLOOR, cap=CAP, policy="thompson", began=now, step_began=now, by="simulation"
    )
    wanted = percent_of(traffic, chance_better(strata))
    return percent if wanted is None else wanted


def pooled(strata: list[StepCounts], _: float, draw: np.random.Generator) -> float:
    """Thompson's sampling on all scores of each version, whenever they came."""
    sums = []
    for side in ("base", "candidate"):
        good = sum(getattr(each, side).get(0, 0) for each in strata)
        bad = sum(getattr(each, side).get(8, 0) for each in strata)
        sums.append(draw.beta(good + 1, bad + 1, 400))
    return float(100 * (sums[1] > sums[0]).mean())


def even(_: list[StepCounts], __: float, ___: np.random.Generator) -> float:
    return 50.0


POLICIES: Final[dict[str, Policy]] = {"Marway": marway, "half and half": even, "pooled Thompson": pooled}


def simulate(world: World, policy: Policy, draw: np.random.Generator) -> Run:
    percent, moves = (50.0 if policy is even else START), 0
    counted: dict[float, list[int]] = {}
    percents = []
    for minute in range(MINUTES):
        percents.append(percent)
        share = percent / 100
        shift = world.rise * minute / MINUTES
        many = int(draw.binomial(SCORES, share))
        row = counted.setdefault(share, [0, 0, 0, 0])
        for at, (mean, count) in enumerate(((world.base, SCORES - many), (world.candidate, many))):
            good = int(draw.binomial(count, min(1.0, max(0.0, mean + shift))))
            row[2 * at] += good
            row[2 * at + 1] += count - good
        strata = [
            StepCounts(step=0, share=share, base={0: a, 8: b}, candidate={0: c, 8: d})
            for share, (a, b, c, d) in counted.items()
        ]
        wanted = policy(strata, percent, draw)
        moves += wanted != percent
        percent = wanted
    return Run(percents, moves)


def measure(runs: int) -> dict[str, Any]:
    found: dict[str, Any] = {"runs": runs, "minutes": MINUTES, "scores_a_minute": SCORES, "worlds": {}}
    for world in WORLDS:
        rows = found["worlds"][world.name] = {}
        for name, policy in POLICIES.items():
            draw = np.random.default_rng([SEED, WORLDS.index(world), list(POLICIES).index(name)])
            made = [simulate(world, policy, draw) for _ in range(runs)]
            candidate = [statistics.fmean(each.percents) for each in made]
            last = [statistics.fmean(each.percents[-10:]) for each in made]
            gap = world.candidate - world.base
            worse = [100 - each if gap > 0 else each for each in candidate]
            rows[name] = {
                "to_candidate": statistics.fmean(candidate),
                "at_the_end": statistics.fmean(last),
                "to_the_worse": statistics.fmean(worse) if gap else None,
                "lost_a_thousand": statistics.fmean(worse) / 100 * abs(gap) * 1000,
                "moves": statistics.fmean(each.moves for each in made),
                "wrong_way": sum((each > 80 or each < 20) if not gap else (each < 50) == (gap > 0) for each in last)
                / len(last),
            }
    return found


def markdown(found: dict[str, Any]) -> str:
    lines = [
        f"{found['runs']} simulated rollouts each, {found['minutes']} minutes with {found['scores_a_minute']} scores "
        f"(0 or 1) a minute; start at {START:g} %, floor {FLOOR:g} %, cap {CAP:g} %.",
        "",
        "| truth | policy | to the candidate | in the last 10 minutes | to the worse one | lost score a 1000 requests "
        "| moves | wrong at the end |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for world, rows in found["worlds"].items():
        for policy, row in rows.items():
            worse = "" if row["to_the_worse"] is None else f"{row['to_the_worse']:.1f} %"
            lines.append(
                f"| {world} | {policy} | {row['to_candidate']:.1f} % | {row['at_the_end']:.1f} % | {worse} "
                f"| {row['lost_a_thousand']:.1f} | {row['moves']:.1f} | {row['wrong_way']:.1%} |"
            )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=300, help="simulated rollouts each (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    result = measure(args.runs)
    print(markdown(result))
    write(args, "bandit", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
