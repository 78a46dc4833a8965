"""Every benchmark that says where Marway stands, one after the other, and the report of them all.

`make bench` takes less than a quarter of an hour on two processors and writes benchmarks/results: one JSON document a
part with the figures of every round, latest.md and its charts. A part that fails is reported and the rest goes on, with
status 1 in the end. `--only speed,cache` runs some parts, and leaves what the others said last time in the report;
`--quick` shows within minutes that all of it works, with figures that mean nothing, beside the results that are kept.
"""

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import report

HERE = Path(__file__).parent
RESULTS = HERE / "results"
_PART_S = 900
_END_S = 90


@dataclass(frozen=True)
class Part:
    """One benchmark, with its arguments for a real run and for one that shows that it works."""

    script: str
    real: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()


_GOALS = ("--rounds", "5", "--seconds", "2", "--warm", "2")
_MORE = ("--more-rounds", "3", "--more-seconds", "1")
_QUICK = ("--rounds", "1", "--seconds", "1")
PARTS = {
    "speed": Part(
        "bench_speed.py",
        ("--workloads", "all", *_GOALS, *_MORE),
        ("--workloads", "tiny,tensor", *_QUICK, "--warm", "1", "--clients", "8"),
    ),
    "features": Part("bench_features.py", ("--rounds", "7", "--seconds", "1"), (*_QUICK, "--features", "auth")),
    "cache": Part("bench_cache.py", ("--rounds", "3", "--seconds", "1"), _QUICK),
    "graphs": Part("bench_graphs.py", ("--rounds", "8", "--requests", "25"), ("--rounds", "1", "--requests", "2")),
    "path": Part("bench_path.py", ("--rounds", "5", "--requests", "200"), ("--rounds", "1", "--requests", "20")),
    "bodies": Part("bench_bodies.py", (), ("--requests", "4", "--mib", "10")),
    "cold": Part("bench_cold_path.py", ("--rounds", "3"), ("--rounds", "1")),
    "workers": Part("bench_cold.py", ("--rounds", "4"), ("--rounds", "1")),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", metavar="PARTS", help="with commas between them, of: " + ", ".join(PARTS))
    parser.add_argument("--skip", metavar="PARTS", default="", help="leave these out")
    parser.add_argument("--quick", action="store_true", help="show that everything works; keeps no result")
    parser.add_argument("--out", type=Path, help="directory of the results (default: benchmarks/results)")
    args = parser.parse_args()
    names = args.only.split(",") if args.only else list(PARTS)
    names = [name for name in names if name not in args.skip.split(",")]
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        parser.error(f"there is no part {', '.join(unknown)}; there are {', '.join(PARTS)}")
    out = args.out or (HERE.parent / ".bench-cache" / "quick" if args.quick else RESULTS)
    began = time.monotonic()
    failed = [name for name in names if not run(name, out, quick=args.quick)]
    text = report.write(out)
    print(text)
    print(f"{out / 'latest.md'} written; {time.monotonic() - began:.0f} s in all")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def run(name: str, out: Path, *, quick: bool) -> bool:
    """Run one part, which leaves its document; return whether it went well."""
    part = PARTS[name]
    target = out / "data" / f"{name}.json"
    arguments = part.quick if quick else part.real
    command = [sys.executable, str(HERE / part.script), *arguments, "--json", str(target)]
    print(f"== {name}: {' '.join(arguments)}", flush=True)
    began = time.time()
    with subprocess.Popen(command) as process:
        try:
            status = process.wait(_PART_S)
            problem = f"ended with status {status}" if status else None
        except subprocess.TimeoutExpired:
            problem = f"did not end within {_PART_S} s"
            process.send_signal(signal.SIGINT)  # so that it ends what it started
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_S)
            process.kill()
    if problem is not None:
        print(f"== {name} {problem}", file=sys.stderr, flush=True)
        if target.exists() and target.stat().st_mtime < began:
            found: dict[str, Any] = json.loads(target.read_text())
            found["problem"] = f"the last run {problem}; what is shown is from the one before"
            target.write_text(json.dumps(found, indent=1) + "\n")
    return problem is None


if __name__ == "__main__":
    sys.exit(main())
