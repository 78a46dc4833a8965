"""Memory while large bodies go through: 20 predicts of 50 MiB at once, each with an answer that tells it from others.

`make bench-bodies`, or `python benchmarks/bench_bodies.py --requests 20 --mib 50`. Peaks are the kernel's own marks of
high water (`VmHWM`), set back before the load; a process has grown by its peak less what it took before. A first round
with bodies one after the other warms everything up, so that growth is what bodies at once take.
"""

import argparse
import contextlib
import sys
import tempfile
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
from documents import Table, add_output, write
from servers import MarwayUp, Processes, by_kind, marway_up, of_home
from workloads import TENSOR, floats

MIB = 2**20
TIMEOUT_S = 240
PATH = f"/predict/{TENSOR.name}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20, help="predicts at once (default: %(default)s)")
    parser.add_argument("--mib", type=int, default=50, help="size of each body (default: %(default)s)")
    add_output(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as name, marway_up(Path(name) / "home") as up:
        result = measure(up, args.requests, args.mib * MIB)
    print(markdown(result))
    write(args, "bodies", result)
    return 0 if result["failed"] == 0 else 1


def measure(up: MarwayUp, requests: int, size: int) -> dict[str, Any]:
    TENSOR.publish(up.ready["registry"], up.ready["admin"])
    url = up.ready["gateway"]
    # Two bodies that every request is one of, told apart by their answers: what is mixed up is seen.
    bodies = [floats(size // 4, offset) for offset in (0.0, 1.0)]
    rights = [predict(url, body)[1] for body in bodies]
    assert rights[0] != rights[1], rights
    parts = by_kind(of_home(up.home))
    before = {part: memory(processes) for part, processes in parts.items()}
    for process in (process for processes in parts.values() for process in processes):
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # proc(5): sets VmHWM back to what is taken now
    began = time.perf_counter()
    answers = together(url, [bodies[number % 2] for number in range(requests)])
    took = time.perf_counter() - began
    peaks = peak(parts)
    good = [answer for number, answer in enumerate(answers) if answer == (200, rights[number % 2])]
    wrong = [answer for number, answer in enumerate(answers) if answer[0] == 200 and answer[1] != rights[number % 2]]
    if wrong:
        raise AssertionError(f"wrong answers: {wrong[:3]}")
    said = sorted({f"{status}: {body[:120]!r}" for status, body in answers if status != 200})
    sent = requests * size
    return {
        "requests": requests,
        "mib": size // MIB,
        "answered": len(good),
        "failed": requests - len(good),
        "failures": said[:5],
        "took_s": took,
        "before_bytes": before,
        "growth_bytes": {part: peaks[part] - before[part] for part in before},
        "in_flight_bytes": {"gateway": sent, "sidecar": in_flight(up, sent)},
    }


def in_flight(up: MarwayUp, sent: int) -> int:
    """Return how many bytes of bodies the sidecar lets in at once: all that were sent, if it has no bound."""
    from marway_sidecar.settings import SidecarSettings

    bound = getattr(SidecarSettings(registry=up.ready["registry"]), "body_memory_bytes", None)
    return min(sent, bound) if bound is not None else sent


def together(url: str, bodies: list[bytes]) -> list[tuple[int, bytes]]:
    """Send all bodies at the same time, and return status and body of each answer."""
    answers: list[tuple[int, bytes]] = [(0, b"no answer")] * len(bodies)
    start = threading.Barrier(len(bodies))

    def send(number: int) -> None:
        start.wait()
        try:
            answers[number] = predict(url, bodies[number])
        except (OSError, HTTPException) as exc:
            answers[number] = (0, repr(exc).encode())

    threads = [threading.Thread(target=send, args=(number,)) for number in range(len(bodies))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def predict(url: str, body: bytes) -> tuple[int, bytes]:
    connection = HTTPConnection(urlsplit(url).netloc, timeout=TIMEOUT_S)
    headers = {"content-type": "application/octet-stream", "x-request-timeout-ms": str(TIMEOUT_S * 1000)}
    try:
        connection.request("POST", PATH, memoryview(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def memory(processes: list[psutil.Process]) -> int:
    return sum(_status(process, "VmRSS") for process in processes)


def peak(parts: Processes) -> dict[str, int]:
    return {part: sum(_status(process, "VmHWM") for process in processes) for part, processes in parts.items()}


def _status(process: psutil.Process, key: str) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process.pid}/status").read_text().splitlines():
            if line.startswith(f"{key}:"):
                return int(line.split()[1]) * 1024
    return 0  # it has ended, or is about to


def markdown(result: dict[str, Any]) -> str:
    """Return the table of memory."""
    sent = result["requests"] * result["mib"]
    lines = [
        f"{result['requests']} predicts of {result['mib']} MiB at once ({sent} MiB): {result['answered']} answered "
        f"right, {result['failed']} refused or failed, {result['took_s']:.1f} s.",
        *(f"- `{failure}`" for failure in result["failures"]),
        "",
    ]
    table = Table("process", "before", "more at its peak", "bytes in flight", "growth / in flight")
    for part, before in result["before_bytes"].items():
        growth, flying = result["growth_bytes"][part], result["in_flight_bytes"].get(part)
        ratio = ("", "") if flying is None else (f"{flying / MIB:.0f} MiB", f"{growth / flying:.2f}")
        table.add(part, f"{before / MIB:.0f} MiB", f"{growth / MIB:.0f} MiB", *ratio)
    return "\n".join([*lines, *table.lines(), ""])


if __name__ == "__main__":
    sys.exit(main())
