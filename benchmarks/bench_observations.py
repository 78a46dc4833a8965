"""How long `marway quality` and `marway drift` take over a million kept predictions, and in how much memory.

A registry in a directory with one model of two versions, as many predictions with kept bodies as asked for, over three
days, and feedback about half of them. Once in a file for each hour, as `marway gc` leaves them, and once in thousands
of small ones, as a gateway left them that was never merged. The verb runs as a process of its own, start included; what
it says is compared with what was written.

    python benchmarks/bench_observations.py --predictions 1000000 --small 200
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from documents import add_output, write

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

SECONDS_GOAL, RSS_GOAL_MIB = 3.0, 500
MODEL, VERSIONS, LABEL = "intent", ("1.0", "1.1"), "PROD"
CLASSES = ("World", "Sports", "Business", "Sci/Tech")
RIGHT = 0.9
TOLD = 0.5
SPAN = timedelta(days=3)
DRIFT = ("--version", "1.1", "--against", "36h", "--window", "36h")
RULE = {"kind": "classification", "prediction": "label", "minimum": 0.8}
_ULID = np.frombuffer(b"0123456789ABCDEFGHJKMNPQRSTVWXYZ", dtype="S1")


@dataclass
class Written:
    """What was written: how many of each version were right, wrong, or have no truth yet."""

    counts: Counter[tuple[str, str]]
    files: int


def write_store(root: Path, *, predictions: int, a_file: int, until: datetime, seed: int = 0) -> Written:
    """Write observations and feedback of the time before ``until`` into a directory, so many rows a file."""
    from marway_observations.layout import FEEDBACK, observations_prefix, partition

    draw = np.random.default_rng(seed)
    files = max(predictions // a_file, 1)
    counts: Counter[tuple[str, str]] = Counter()
    written = 0
    for number in range(files):
        begin = until - SPAN + SPAN * number / files
        # A file has rows of one hour alone.
        length = min(SPAN / files, begin.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1) - begin)
        rows = a_file if number < files - 1 else predictions - a_file * (files - 1)
        at = np.sort(begin.timestamp() + draw.uniform(0, length.total_seconds(), rows)) * 1e6
        truth = draw.integers(0, len(CLASSES), rows)
        predicted = np.where(draw.random(rows) < RIGHT, truth, (truth + 1) % len(CLASSES))
        version = draw.integers(0, len(VERSIONS), rows)
        told = draw.random(rows) < TOLD
        standing = np.where(told, np.where(predicted == truth, "right", "wrong"), "missing")
        counts.update(zip(np.array(VERSIONS)[version].tolist(), standing.tolist(), strict=True))
        ids = _ulids(at // 1000, draw)
        table = _observations(ids, at, version, predicted, draw)
        files_of = (
            (observations_prefix(MODEL), table, begin),
            (FEEDBACK, _feedback(ids, at, truth, told, draw), begin + timedelta(hours=1)),
        )
        for prefix, each, hour in files_of:
            path = root / f"{prefix}{partition(hour)}gateway-1-{number:06d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            pq.write_table(each, path, compression="zstd")
            written += 1
    return Written(counts, written)


def write_registry(root: Path) -> None:
    """Write the model and its versions as publishing would leave them."""
    from marway.records import ModelState, Pointer
    from marway.registry import Registry, keys, open_registry
    from marway.registry.encoding import encode
    from marway.serving import ServingSettings
    from support.registry import record_of

    registry: Registry = open_registry(root.as_uri(), create=True)
    serving = {"*": ServingSettings.model_validate({"quality": [RULE]})}
    objects = {
        keys.pointer_key(MODEL): encode(Pointer(kind="name", model=MODEL)),
        keys.state_key(MODEL): encode(ModelState(generation=1, labels={LABEL: VERSIONS[1]}, serving=serving)),
        **{
            keys.record_key(MODEL, each): encode(record_of(each.encode(), name=MODEL, version=each))
            for each in VERSIONS
        },
    }
    for key, data in objects.items():
        registry.store.create(key, data)


def ask(verb: str, registry: str, observations: str, *more: str) -> tuple[float, float, float, Any]:
    """Return seconds, seconds of processors, MiB at most, and the document of one verb."""
    command = [sys.executable, "-m", "marway", verb, MODEL, *more, "--registry", registry]
    began = time.perf_counter()
    process = subprocess.Popen([*command, "--observations", observations, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    took = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, said
    return took, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024, json.loads(said)


def check(document: dict[str, Any], written: Written) -> None:
    """Compare what the verb says with what was written, exactly."""
    found = {each["version"]: each for each in document["results"] if each["label"] is None}
    assert document["left_out"] == []
    for version in VERSIONS:
        right, wrong, missing = (written.counts[version, each] for each in ("right", "wrong", "missing"))
        told = found[version]
        assert (told["known"], told["missing"], told["unusable"]) == (right + wrong, missing, {}), (told, written)
        assert abs(told["value"] - right / (right + wrong)) < 1e-12, (told, written)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--predictions", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=200, help="rows of a small file (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    until = datetime.now(timezone.utc)
    hourly = max(args.predictions // int(SPAN / timedelta(hours=1)), 1)
    with tempfile.TemporaryDirectory() as directory:
        registry = Path(directory) / "registry"
        write_registry(registry)
        stores = {}
        for name, a_file in (("merged", hourly), ("small", min(args.small, hourly))):
            root = Path(directory) / name
            stores[name] = (root, write_store(root, predictions=args.predictions, a_file=a_file, until=until))
        found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in stores}
        drifts: dict[str, list[tuple[float, float, float]]] = {name: [] for name in stores}
        for _ in range(args.rounds):
            for name, (root, written) in stores.items():
                took, cpu, memory, document = ask("quality", registry.as_uri(), root.as_uri())
                check(document, written)
                found[name].append((took, cpu, memory))
                # Two windows of a day and a half: half of all predictions, those of one version.
                took, cpu, memory, document = ask("drift", registry.as_uri(), root.as_uri(), *DRIFT)
                assert [each["status"] for each in document] == ["steady"], document
                drifts[name].append((took, cpu, memory))
    print(f"{args.predictions} predictions, load average {os.getloadavg()[0]:.1f}")
    for name, rounds in found.items():
        took, cpu, memory = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(
            f"{name:>6}, {stores[name][1].files:>6} files: {took:.2f} s ({cpu:.2f} s of processors), {memory:.0f} MiB "
            f"(goals: {SECONDS_GOAL:g} s, {RSS_GOAL_MIB} MiB)"
        )
    for name, rounds in drifts.items():
        took, cpu, memory = (statistics.median(each) for each in zip(*rounds, strict=True))
        print(f"{name:>6}, drift: {took:.2f} s ({cpu:.2f} s of processors), {memory:.0f} MiB")
    columns = ("seconds", "processor_seconds", "mib")
    result = {name: dict(zip(columns, zip(*rounds, strict=True), strict=True)) for name, rounds in found.items()}
    result |= {
        f"drift_{name}": dict(zip(columns, zip(*each, strict=True), strict=True)) for name, each in drifts.items()
    }
    write(args, "observations", result)


def _ulids(milliseconds: np.ndarray, draw: np.random.Generator) -> pa.Array:
    digits = np.empty((len(milliseconds), 26), dtype="S1")
    rest = milliseconds.astype(np.int64)
    for place in range(9, -1, -1):
        digits[:, place] = _ULID[rest % 32]
        rest //= 32
    digits[:, 10:] = _ULID[draw.integers(0, 16, (len(milliseconds), 16))]
    return pa.array(digits.view("S26").ravel().astype("U26"))


def _observations(
    ids: pa.Array, at: np.ndarray, version: np.ndarray, predicted: np.ndarray, draw: np.random.Generator
) -> pa.Table:
    rows = len(at)
    alike = {
        "label": LABEL,
        "role": "base",
        "surface": "native",
        "client": "10.0.0.1",
        "pod": "pod-1",
        "status": "200",
        "outcome": "ok",
        "attempts": 1,
        "request_bytes": 90,
        "response_bytes": 90,
        "rate": 1.0,
        "bodies": "kept",
        "input_type": "application/json",
        "output_type": "application/json",
    }
    scores = draw.random(rows)
    texts = [f'{{"text": "some words {row} that a reader of news sent to be put in a class"}}' for row in range(rows)]
    answers = [
        f'{{"label": "{CLASSES[each]}", "score": {score:.4f}, "scores": [{score:.4f}, {1 - score:.4f}]}}'
        for each, score in zip(predicted, scores, strict=True)
    ]
    given: dict[str, Any] = {
        "prediction_id": ids,
        "request_id": [f"{each:032x}" for each in draw.integers(0, 2**62, rows)],
        "at": at.astype(np.int64),
        "version": np.array(VERSIONS)[version],
        "duration_s": scores / 100,
        "input": [each.encode() for each in texts],
        "output": [each.encode() for each in answers],
    }
    return _table("OBSERVATIONS", rows, {**{name: [each] * rows for name, each in alike.items()}, **given})


def _feedback(
    ids: pa.Array, at: np.ndarray, truth: np.ndarray, told: np.ndarray, draw: np.random.Generator
) -> pa.Table:
    came = (at[told] + 3600e6).astype(np.int64)
    given = {
        "feedback_id": _ulids(came // 1000, draw),
        "at": came,
        "received_at": came,
        "prediction_id": ids.filter(pa.array(told)),
        "truth": [json.dumps(CLASSES[each]) for each in truth[told]],
    }
    return _table("FEEDBACK", int(told.sum()), given)


def _table(name: str, rows: int, columns: dict[str, Any]) -> pa.Table:
    from marway_observations import schema

    table: pa.Schema = getattr(schema, name)
    made = [
        pa.array(columns[field.name]).cast(field.type) if field.name in columns else pa.nulls(rows, field.type)
        for field in table
    ]
    return pa.table(made, schema=table)


if __name__ == "__main__":
    main()
