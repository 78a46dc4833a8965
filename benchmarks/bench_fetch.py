"""Fetching an archive from S3 into the archive store: by one stream, and in parts by several.

All in processes of their own, taking turns, against one SeaweedFS on this machine. What is timed is the whole fetch:
turn, reservation, download, digest, fsync and rename. Once as fast as the machine goes, and once with each connection
held to a rate, as S3 does it (AWS names 85 to 90 MB/s for one request). Prints the medians, their ratio and the peak
memory of the processes.

    python benchmarks/bench_fetch.py --size-mib 1024 --rounds 5
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MIB = 1024 * 1024
STREAMS = 4
PARALLEL_FROM_MIB = 4
"""So that a small archive shows both ways too."""


def fetch(url: str, sha256: str, size: int, streams: int, directory: str) -> float:
    from marway.archive_store import ArchiveStore, download
    from marway.objects import open_store
    from marway.records import ArchiveRef
    from marway.registry import Registry

    download.PARALLEL_FROM_BYTES = PARALLEL_FROM_MIB * MIB  # type: ignore[misc]
    remote = open_store(url)
    remote.size("connected")  # the client is made before the clock starts
    store = ArchiveStore(Path(directory), Registry(remote), observe=lambda *_: None, streams=streams)
    began = time.perf_counter()
    with store.use(ArchiveRef(sha256=sha256, size_bytes=size)):
        return time.perf_counter() - began


def upload(url: str, directory: Path, size_mib: int) -> str:
    from marway.objects import open_store

    path = directory / "large.mar"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(size_mib):
            piece = os.urandom(MIB)
            digest.update(piece)
            file.write(piece)
    open_store(url).create_file(f"archives/sha256/{digest.hexdigest()}.mar", path, sha256=digest.hexdigest())
    path.unlink()
    return digest.hexdigest()


def timed(arguments: list[str], env: dict[str, str]) -> tuple[float, float]:
    """Return the seconds that one took in a process of its own, and the process's peak memory in MiB."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, __file__, "--one", *arguments, directory],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            check=True,
        )
    seconds, peak = json.loads(done.stdout)
    return seconds, peak


def peak_mib() -> float:
    """Return this process's own peak memory; `getrusage` would count its parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size-mib", type=int, default=128, help="Size of the archive.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rate-mib", type=float, default=80, help="What a held connection gives, MiB/s.")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        url, sha256, size, streams, directory = options.one
        print(json.dumps((fetch(url, sha256, int(size), int(streams), directory), peak_mib())))
        return
    from support.seaweed import seaweed
    from support.thin_line import thin_line

    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        seaweed() as server,
        thin_line(server.endpoint, options.rate_mib * MIB) as thin,
    ):
        os.environ.update(server.env)
        url = f"s3://{server.bucket}/bench"
        sha256 = upload(url, Path(directory), options.size_mib)
        for number in range(options.rounds):
            order = (1, STREAMS) if number % 2 else (STREAMS, 1)
            for how, endpoint in (("unheld", server.endpoint), ("held", thin)):
                for streams in order:
                    arguments = [url, sha256, str(options.size_mib * MIB), str(streams)]
                    result = timed(arguments, {**server.env, "AWS_ENDPOINT_URL_S3": endpoint})
                    found.setdefault((how, streams), []).append(result)
    for how, said in (
        ("unheld", "connections as fast as the machine goes"),
        ("held", f"connections held to {options.rate_mib:g} MiB/s each"),
    ):
        print(said)
        for streams in (1, STREAMS):
            each = found[how, streams]
            rounds = ", ".join(f"{seconds:.2f}" for seconds, _ in each)
            median = statistics.median(seconds for seconds, _ in each)
            peak = max(mib for _, mib in each)
            print(f"  {streams} streams {median:7.2f} s median of {rounds}; peak {peak:.0f} MiB")
        ratio = statistics.median(s for s, _ in found[how, STREAMS]) / statistics.median(s for s, _ in found[how, 1])
        print(f"  {STREAMS} streams / 1 stream = {ratio:.2f} for {options.size_mib} MiB")


if __name__ == "__main__":
    main()
