"""`marway batch` against a real gateway and a real pod: killed at random moments, and with S3 on both sides."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from marway.refs import new_ulid
from marway_archiver import publish
from support.cli import marway, refused
from support.seaweed import S3Server
from support.up import Up

# Extended: tests/ops/batch/test_running.py goes on behind runs that ended early, with shards, over a transport;
# test_formats.py has which of two attempts at a part counts; tests/core/objects the same creates in S3.
pytestmark = [pytest.mark.e2e, pytest.mark.extended, pytest.mark.timeout(180)]

PROBE = Path(__file__).parent / "models" / "probe.py"


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(tmp_path_factory.mktemp("up") / "home", "--engine", "native") as running:
        publish(
            model_name="probe", version="1.0", handler=str(PROBE), registry=running.registry, label="PROD", force=True
        )
        yield running


def text_of(row: int) -> str:
    return "boom" if row % 50 == 0 else f"row {row}"  # at which the handler raises


def lines_of(rows: Iterable[int]) -> bytes:
    return b"".join(json.dumps({"text": text_of(row)}).encode() + b"\n" for row in rows)


def read(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(paths) for line in path.read_text().splitlines()]


def test_each_row_once_whenever_it_is_killed(up: Up, tmp_path: Path) -> None:
    """Killed by SIGKILL at random moments and run again, at the end twice at once, each row is there exactly once."""
    rows, chance, killed = range(1, 401), random.Random(), 0
    given, out = tmp_path / "in.jsonl", tmp_path / "out"
    given.write_bytes(lines_of(rows))
    command = [sys.executable, "-m", "marway", "batch", "probe", "--input", str(given), "--output", str(out)]
    command += ["--gateway", up.gateway, "--column", "text", "--part-rows", "10"]

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env={**os.environ})

    def done() -> int:
        return len(list(out.glob("_commits/*")))

    for _ in range(3):
        with started() as process:
            before = done()
            while process.poll() is None and done() == before:  # so that it is between two parts, or within one
                time.sleep(0.01)
            time.sleep(chance.uniform(0, 0.1))
            process.send_signal(signal.SIGKILL)
        killed += process.returncode == -signal.SIGKILL
    assert killed == 3, "the job ended before it was killed: give it more rows"
    assert not (out / "_manifest.json").exists()
    last = [started(), started()]
    said = [process.communicate(timeout=60)[1] for process in last]
    assert [process.returncode for process in last] == [0, 0], said
    answers, failures = read(out.glob("part-*")), read((out / "_failed").glob("part-*"))
    assert [each["row"] for each in answers] == [row for row in rows if row % 50]
    assert all(each["prediction"]["value"] == text_of(each["row"]) for each in answers)
    assert [each["row"] for each in failures] == [row for row in rows if row % 50 == 0]
    assert {(each["code"], each["status"]) for each in failures} == {("model_error", 500)}
    assert all(each["prediction_id"] for each in answers + failures)


def test_from_s3_to_s3(up: Up, s3_server: S3Server) -> None:
    """Shards side by side read objects of a prefix in S3 and write Parquet there, each row once; an input
    that has changed since is another job.
    """
    s3, base = s3_server.client(), new_ulid().lower()
    for name, rows in {"a.jsonl": range(1, 31), "deep/b.jsonl": range(31, 61), "_no.jsonl": range(100, 101)}.items():
        s3.put_object(Bucket=s3_server.bucket, Key=f"{base}/in/{name}", Body=lines_of(rows))
    url = f"s3://{s3_server.bucket}/{base}"
    words = ("batch", "probe", "--input", f"{url}/in/", "--output", f"{url}/out.parquet", "--gateway", up.gateway)
    words += ("--column", "text", "--keep", "text", "--part-rows", "8", "--json")
    with ThreadPoolExecutor() as threads:
        shards = list(threads.map(lambda shard: marway(*words, "--shard", shard, **s3_server.env), ("0/2", "1/2")))
    assert [done.returncode for done in shards] == [0, 0], [done.stderr for done in shards]
    assert [json.loads(done.stdout)["asked_now"] for done in shards] == [32, 28]

    def kept(key: str) -> bytes:
        return bytes(s3.get_object(Bucket=s3_server.bucket, Key=f"{base}/out.parquet/{key}")["Body"].read())

    manifest = json.loads(kept("_manifest.json"))  # of whichever shard was the last
    assert (manifest["rows"], manifest["failed"]) == (59, 1)
    parts = manifest["parts"]
    answers = [
        row for part in parts for row in pyarrow.parquet.read_table(io.BytesIO(kept(part["answers"]))).to_pylist()
    ]
    assert [(each["file"], each["row"], each["text"]) for each in answers] == [
        (f"{url}/in/{'a' if row <= 30 else 'deep/b'}.jsonl", row if row <= 30 else row - 30, text_of(row))
        for row in range(1, 61)
        if row != 50
    ]
    assert all(json.loads(each["prediction"])["value"] == each["text"] for each in answers)
    (failed,) = (json.loads(kept(part["failures"])) for part in parts if part["failures"])
    assert (failed["file"], failed["row"], failed["code"]) == (f"{url}/in/deep/b.jsonl", 20, "model_error")
    listed = s3.list_objects_v2(Bucket=s3_server.bucket, Prefix=f"{base}/out.parquet/part-")["Contents"]
    assert len(listed) == len(parts)
    s3.put_object(Bucket=s3_server.bucket, Key=f"{base}/in/a.jsonl", Body=lines_of(range(2, 32)))
    assert "a.jsonl has changed since" in refused(marway(*words, **s3_server.env))
