"""Publishing an archive that is canonical already to S3, against `boto3.upload_file` of the same file.

Both in processes of their own, taking turns, against one SeaweedFS on this machine. What is timed is the whole publish:
the check of the archive from end to end, the upload with its digests, the record and the pointers; and the whole
upload. Prints both medians, their ratio (goal: at most 1.3) and the peak memory of the processes.

    python benchmarks/bench_publish.py --size-mib 1024 --rounds 5
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
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

GOAL = 1.3
MIB = 1024 * 1024
HANDLER = "class Handler:\n    def initialize(self, context): ...\n    def handle(self, data, context): return data\n"


def publish(path: Path, prefix: str) -> float:
    from marway.objects import open_store
    from marway.registry import Registry
    from marway_archiver import publish_archive

    store = open_store(f"s3://models/{prefix}")
    store.size("connected")  # the other side's client is made before its clock starts as well
    began = time.perf_counter()
    publish_archive(path, registry=Registry(store))
    return time.perf_counter() - began


def upload(path: Path, prefix: str) -> float:
    import boto3
    from botocore.config import Config

    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    client.list_objects_v2(Bucket="models", Prefix=prefix)
    began = time.perf_counter()
    client.upload_file(str(path), "models", f"{prefix}/uploaded.mar")
    return time.perf_counter() - began


def pack(directory: Path, size_mib: int) -> Path:
    from marway_archiver import pack

    (directory / "handler.py").write_text(HANDLER)
    with (directory / "weights.bin").open("wb") as weights:
        for _ in range(size_mib):
            weights.write(os.urandom(MIB))
    packed = pack(
        model_name="large",
        version="1.0",
        handler=str(directory / "handler.py"),
        extra_files=[directory / "weights.bin"],
        export_path=directory,
    )
    (directory / "weights.bin").unlink()
    return packed.path


def timed(what: str, path: Path, prefix: str, env: dict[str, str]) -> tuple[float, float]:
    """Return the seconds that one took in a process of its own, and the process's peak memory in MiB."""
    child = subprocess.Popen(
        [sys.executable, __file__, "--one", what, str(path), prefix], env={**os.environ, **env}, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    said = child.stdout.read()
    if child.wait():
        raise SystemExit(child.returncode)
    seconds, peak = json.loads(said)
    return seconds, peak


def peak_mib() -> float:
    """Return this process's own peak memory; `getrusage` would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size-mib", type=int, default=128, help="Size of the archive.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        what, path, prefix = options.one
        seconds = {"publish": publish, "upload": upload}[what](Path(path), prefix)
        print(json.dumps((seconds, peak_mib())))
        return
    from support.seaweed import seaweed

    found: dict[str, list[tuple[float, float]]] = {"publish": [], "upload": []}
    with tempfile.TemporaryDirectory() as directory, seaweed() as server:
        path = pack(Path(directory), options.size_mib)
        client = server.client()
        for number in range(options.rounds):
            order = ("publish", "upload") if number % 2 else ("upload", "publish")
            for what in order:
                prefix = f"{what}-{number}"
                found[what].append(timed(what, path, prefix, server.env))
                for each in client.list_objects_v2(Bucket=server.bucket, Prefix=prefix).get("Contents", ()):
                    client.delete_object(Bucket=server.bucket, Key=each["Key"])
    medians = {what: statistics.median(seconds for seconds, _ in each) for what, each in found.items()}
    for what, each in found.items():
        rounds = ", ".join(f"{seconds:.2f}" for seconds, _ in each)
        print(f"{what:8} {medians[what]:7.2f} s median of {rounds}; peak {max(mib for _, mib in each):.0f} MiB")
    ratio = medians["publish"] / medians["upload"]
    print(f"publish / upload_file = {ratio:.2f} for {options.size_mib} MiB (goal: at most {GOAL})")


if __name__ == "__main__":
    main()
