"""What `marway batch` does a second, and what it costs callers beside it: their latency alone and with a job, in turns.

`make bench-batch`, or `python benchmarks/bench_batch.py --rounds 6 --seconds 8`. Callers come at a fixed rate, as in
bench_shadow.py. Each turn's job is ended by kill -9, and the same job goes on in the next; at the end it is finished,
and its output has each row once. Gateway, pod, job and callers share the processors.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench_shadow import SEED, Load, quantile
from documents import Table, add_output, spread, write
from servers import marway_up
from workloads import published


def lines_of(path: Path) -> int:
    with path.open("rb") as file:
        return sum(1 for _ in file)


def measure(rate: float, rounds: int, seconds: float, rows: int, concurrency: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as made, marway_up(Path(made) / "home", "--engine", "native") as up:
        registry, url, admin = (up.ready[name] for name in ("registry", "gateway", "admin"))
        published("tiny", ["abc"])(registry, admin)
        given, output = Path(made) / "rows.jsonl", Path(made) / "out"
        given.write_text("".join(json.dumps({"text": f"row {n}"}) + "\n" for n in range(rows)))
        command = [sys.executable, "-m", "marway", "batch", "tiny", "--input", str(given), "--output", str(output)]
        command += ["--column", "text", "--gateway", url, "--concurrency", str(concurrency), "--json"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        load = Load(url, "/predict/tiny/PROD")
        load.run(50, 3, SEED)
        found: dict[bool, list[list[float]]] = {False: [], True: []}
        for number in range(rounds):
            for beside in (False, True) if number % 2 else (True, False):
                job = subprocess.Popen(command, **quiet) if beside else None
                if job is not None:
                    time.sleep(1.5)  # until it asks
                    assert job.poll() is None, "the job ended before the turn: give more --rows"
                found[beside].append(load.run(rate, seconds, SEED + number))
                if job is not None:
                    assert job.poll() is None, "the job ended within the turn: give more --rows"
                    job.kill()
                    job.wait()
        before = sum(map(lines_of, output.glob("part-*")))
        began = time.perf_counter()
        printed = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        took = time.perf_counter() - began
        numbers = [json.loads(line)["row"] for path in output.glob("part-*") for line in path.open()]
        assert sorted(numbers) == list(range(1, rows + 1)), "each row once"
        return {
            "rate": rate,
            "seconds": seconds,
            "kills": rounds,
            "rows": rows,
            "rows_before_the_last_run": before,
            "rows_a_second_alone": printed["asked_now"] / took,
            **{
                f"{name}_{'beside' if on else 'alone'}_ms": [quantile(each, part) for each in found[on]]
                for name, part in (("p50", 0.5), ("p99", 0.99))
                for on in (False, True)
            },
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=50, help="callers' requests a second (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=6, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=8, help="of load a turn (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=200_000, help="of the job (default: %(default)s)")
    parser.add_argument("--concurrency", type=int, default=32, help="of the job (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    result = measure(args.rate, args.rounds, args.seconds, args.rows, args.concurrency)
    table = Table("p50 alone", "p50 beside a job", "p99 alone", "p99 beside a job", "rows/s alone")
    times = [spread(result[f"{name}_{how}_ms"], unit=" ms") for name in ("p50", "p99") for how in ("alone", "beside")]
    table.add(*times, f"{result['rows_a_second_alone']:,.0f}")
    print("\n".join(table.lines()))
    ratios = [a / b for a, b in zip(result["p99_beside_ms"], result["p99_alone_ms"], strict=True)]
    print(f"p99 beside a job / alone = {statistics.median(ratios):.2f}; killed {result['kills']} times, each row once")
    write(args, "batch", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
