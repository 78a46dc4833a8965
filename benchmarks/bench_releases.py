"""A hundred releases through `marway rollout start`, half of them bad: which are stopped, when, and whom they touched.

`make bench-releases`, or `python benchmarks/bench_releases.py --only intent --limit 4`. One `marway up` with the native
engine serves base versions of three real models (and two of them again, whose truth comes as feedback); callers ask
each 100 times a second. Two models at a time have a release; a good one ends when it is promoted. What was measured is
kept in .bench-cache/releases: a run that was ended goes on there, unless `--fresh`. The last one writes
benchmarks/results/releases.md and its figures.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import release_tables
import release_zoo as zoo
import report
from documents import add_output, write
from release_callers import Callers
from servers import MarwayUp, marway_up

RESULTS = Path(__file__).parent / "results"
SCRATCH = Path(__file__).parents[1] / ".bench-cache" / "releases"
STEPS, STEP_TIME_S = "1,25,100", 60
RATE = 100
LONGEST_S = 200
SETTLE_S = 3.0
LANES = (("intent", "intent-truth", "digits-truth"), ("digits", "picture"))
STOPPED = ("rolled_back", "refused", "paused")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="MODEL[,…]", help="releases of these models alone")
    parser.add_argument("--kind", choices=("good", "bad"), help="these alone")
    parser.add_argument("--what", metavar="TEXT", help="only those that have this in their description")
    parser.add_argument("--limit", type=int, help="at most so many of each model")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    add_output(parser)
    args = parser.parse_args()
    if args.fresh:
        shutil.rmtree(SCRATCH, ignore_errors=True)
    SCRATCH.mkdir(parents=True, exist_ok=True)
    done = Results(SCRATCH / "results.jsonl")
    chosen = choose(zoo.releases(), args, done)
    print(f"{len(chosen)} releases to go, {len(done.rows)} measured before", flush=True)
    if chosen:
        run(chosen, done)
    result = summary(list(done.rows.values()))
    print(release_tables.markdown(result))
    whole = len(done.rows) == len(zoo.releases())
    if whole and args.json is None:
        args.json = RESULTS / "data" / "releases.json"
    write(args, "releases", result)
    if whole:
        report.write(RESULTS)
    return 0


def choose(releases: Sequence[zoo.Release], args: argparse.Namespace, done: "Results") -> list[zoo.Release]:
    models = args.only.split(",") if args.only else zoo.MODELS
    unknown = sorted(set(models) - set(zoo.MODELS))
    if unknown:
        sys.exit(f"no such model: {', '.join(unknown)} (there are {', '.join(zoo.MODELS)})")
    found: list[zoo.Release] = []
    for model in models:
        of_model = [
            each
            for each in releases
            if each.model == model
            and (args.kind is None or each.good == (args.kind == "good"))
            and (args.what is None or args.what in each.what)
        ]
        found += [each for each in of_model[: args.limit] if (each.model, each.version) not in done.rows]
    return found


class Results:
    """What was measured, one line of JSON a release, kept over runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self.rows = {(row["model"], row["version"]): row for row in map(json.loads, lines)}

    def add(self, row: dict[str, Any]) -> None:
        self.rows[row["model"], row["version"]] = row
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def run(chosen: Sequence[zoo.Release], done: Results) -> None:
    home = SCRATCH / "home"
    shutil.rmtree(home, ignore_errors=True)
    config = SCRATCH / "up.toml"
    config.write_text("[gateway]\nobservations_flush_s = 1.0\n")
    with marway_up(home, "--engine", "native", "--config", str(config)) as up:
        models = [model for model in zoo.MODELS if any(each.model == model for each in chosen)]
        prepare(up, models, chosen)
        for model in models:
            serve_base(up, model)
        asyncio.run(lanes(up, chosen, done))


def prepare(up: MarwayUp, models: Sequence[str], chosen: Sequence[zoo.Release]) -> None:
    """Publish all versions beforehand: what publishing costs is not to disturb what is measured."""
    begun = time.monotonic()
    every = [zoo.Release(model, zoo.BASE, True, "base") for model in models] + list(chosen)
    # Training and packing in one after the other, as it uses the processors itself.
    with ThreadPoolExecutor(1) as pool:
        for number, _ in enumerate(pool.map(lambda each: zoo.publish(each, up.ready["registry"], SCRATCH), every), 1):
            print(f"\rpublished {number} of {len(every)}", end="", file=sys.stderr, flush=True)
    print(f"\n{len(every)} versions published in {time.monotonic() - begun:.0f} s", flush=True)


def serve_base(up: MarwayUp, model: str) -> None:
    marway(up, "release", model, zoo.BASE, "--label", "PROD")
    if model.endswith("-truth"):
        marway(up, "serving", model, "--set", "observe=bodies", "--set", f"quality={json.dumps(zoo.QUALITY)}")


async def lanes(up: MarwayUp, chosen: Sequence[zoo.Release], done: Results) -> None:
    async with contextlib.AsyncExitStack() as stack:
        callers = {
            model: await stack.enter_async_context(Callers(up.ready["gateway"], up.ready["admin"], model))
            for model in {each.model for each in chosen}
        }
        async with asyncio.TaskGroup() as group:
            for lane in LANES:
                group.create_task(one_lane(up, [each for each in chosen if each.model in lane], callers, done))


async def one_lane(up: MarwayUp, chosen: Sequence[zoo.Release], callers: dict[str, Callers], done: Results) -> None:
    for release in sorted(chosen, key=lambda each: each.model):
        row = await released(up, release, callers[release.model])
        done.add(row)
        stopped = f"{row['end']} after {row['seconds']:.1f} s"
        mark = "as it should" if (row["end"] == "promoted") is release.good else "NOT as it should"
        print(f"{release.model} {release.version} ({release.what}): {stopped}, {mark}: {row['reason']}", flush=True)


async def released(up: MarwayUp, release: zoo.Release, callers: Callers) -> dict[str, Any]:
    """Roll one release out while callers ask, and return what became of it and of them."""
    model = release.model
    words = ["rollout", "start", model, release.version, "--steps", STEPS, "--step-time", f"{STEP_TIME_S}s", "--json"]
    async with callers.asking(RATE, release.version):
        await asyncio.sleep(SETTLE_S)
        following = asyncio.create_task(callers.followed(release.version, LONGEST_S))
        started = await asyncio.to_thread(marway, up, *words, check=False)
        if started.returncode:
            following.cancel()
            said = " ".join((started.stderr or started.stdout).split())
            seconds, found = 0.0, {"state": "refused", "reason": said[-400:]}
            callers.calls = callers.touched = callers.of_candidate = 0
        else:
            seconds, found = await following
        touched, calls, answered = callers.touched, callers.calls, callers.of_candidate
    row = {
        "model": model,
        "version": release.version,
        "good": release.good,
        "what": release.what,
        "end": found["state"],
        "seconds": round(seconds, 1),
        "reason": found.get("reason") or "",
        "guard": found.get("guard"),
        "calls": calls,
        "touched": touched,
        "answered": answered,
        "evidence": found.get("evidence"),
    }
    if found["state"] in ("running", "paused"):
        await asyncio.to_thread(marway, up, "rollout", "abort", model, check=False)
    elif found["state"] == "promoted":
        await asyncio.to_thread(marway, up, "release", model, zoo.BASE, "--label", "PROD", "--force")
    await asyncio.to_thread(marway, up, "unload", f"{model}/{release.version}", check=False)
    return row


def marway(up: MarwayUp, *words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    told = {"MARWAY_REGISTRY": up.ready["registry"], "MARWAY_GATEWAY_ADMIN_URL": up.ready["admin"]}
    command = [sys.executable, "-m", "marway", *words]
    done = subprocess.run(command, env={**os.environ, **told}, capture_output=True, text=True, timeout=300)
    if check and done.returncode:
        raise AssertionError(f"marway {' '.join(words)}: {done.stdout[-1000:]}{done.stderr[-1000:]}")
    return done


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: (row["good"], row["what"], row["model"], row["version"]))
    bad, good = [row for row in rows if not row["good"]], [row for row in rows if row["good"]]
    in_time = [row for row in bad if row["end"] in STOPPED and row["seconds"] <= STEP_TIME_S + 2]
    return {
        "steps": STEPS,
        "step_time_s": STEP_TIME_S,
        "rate": RATE,
        "rows": rows,
        "bad": len(bad),
        "stopped_in_time": len(in_time),
        "median_s": statistics.median(row["seconds"] for row in in_time) if in_time else None,
        "touched": sum(row["touched"] for row in bad),
        "calls": sum(row["calls"] for row in bad),
        "good": len(good),
        "rolled_back_good": sum(row["end"] in ("rolled_back", "refused") for row in good),
        "promoted_good": sum(row["end"] == "promoted" for row in good),
    }


if __name__ == "__main__":
    raise SystemExit(main())
