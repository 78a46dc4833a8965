"""Marway against other Python model servers: KServe's SDK, MLServer, LitServe and BentoML.

`make bench-peers` makes an environment for each below .venv-peers (about 1 GiB each, torch; `make clean` removes them),
then measures the same model with the same 20 bytes of text on all in interleaved rounds, and writes
benchmarks/results/peers.md. Each serves the model in its own natural protocol, with one worker; those that can make
batches are measured both ways, with the batch size that Marway has. Everything else is as it comes, access logs too.
"""

import argparse
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import report
import wrk
from documents import MARWAY, add_output, write
from peer_servers import PEERS, PEERS_BY_NAME, Peer
from peer_tables import CLIENTS, markdown
from servers import Connection, below, by_kind, cpu_seconds, end, free_ports, marway_up, of_home
from workloads import TINY

HERE = Path(__file__).parent
ENVIRONMENTS = HERE.parent / ".venv-peers"
RESULTS = HERE / "results"
_START_S = 120
_WARM_S = 10
_CLOSE = 1e-3


@dataclass
class Target:
    """One server that runs, and what was measured by number of clients: requests/s, ms, CPU-seconds for 1000."""

    name: str
    url: str
    generator: wrk.Generator
    processes: Callable[[], list[psutil.Process]]
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of load a round and server (default: %(default)s)")
    parser.add_argument("--only", help="peers with semicolons between them (default: all): " + "; ".join(PEERS_BY_NAME))
    parser.add_argument("--write", action="store_true", help="write benchmarks/results/peers.md as well")
    add_output(parser)
    args = parser.parse_args()
    if not wrk.is_installed():
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")
    names = [name.strip() for name in args.only.split(";")] if args.only else list(PEERS_BY_NAME)
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="marway-bench-") as scratch, contextlib.ExitStack() as stack:
        right, target = marway(Path(scratch), stack)
        targets = [target]
        for name in names:
            try:
                targets.append(stack.enter_context(peer(name, PEERS_BY_NAME[name], Path(scratch), right)))
            except Exception as exc:  # noqa: PERF203  # one peer less is no reason to lose the others
                traceback.print_exc()
                failures[name] = f"{type(exc).__name__}: {exc}"[:500]
        targets = measure(targets, args.rounds, args.seconds, failures)
    result = {
        "rounds": args.rounds,
        "seconds": args.seconds,
        "versions": sorted({version(PEERS_BY_NAME[name].package) for name in names}),
        "targets": {target.name: target.figures for target in targets},
        "failures": failures,
    }
    text = markdown(result)
    print(text)
    if args.write:
        args.json = RESULTS / "data" / "peers.json"
    write(args, "peers", result)
    if args.write:
        report.write(RESULTS)
    return 1 if failures else 0


def marway(scratch: Path, stack: contextlib.ExitStack) -> tuple[list[float], Target]:
    """Start Marway, and return the right answer and its target."""
    up = stack.enter_context(marway_up(scratch / "home"))
    TINY.publish(up.ready["registry"], up.ready["admin"])
    url, request = f"{up.ready['gateway']}/predict/{TINY.name}", TINY.request()
    with Connection(url) as connection:
        said = connection.ask("POST", urlsplit(url).path, request.body, request.content_type)
    generator = wrk.Generator(scratch / "wrk-marway", request, said)
    return json.loads(said), Target(MARWAY, url, generator, lambda: _all(up.home))


def _all(home: Path) -> list[psutil.Process]:
    return [process for processes in by_kind(of_home(home)).values() for process in processes]


@contextlib.contextmanager
def peer(name: str, what: Peer, scratch: Path, right: list[float]) -> Iterator[Target]:
    """Run a peer, in its environment, until the context ends; its answer must be the right one."""
    bin_ = environment(what.package)
    directory = scratch / name.replace(", ", "-").replace(" ", "-")
    directory.mkdir()
    (port,) = free_ports(1)
    variables = {**os.environ, **what.environment, "PYTHONPATH": f"{PEERS}{os.pathsep}{HERE / 'models'}"}
    variables |= {"OMP_NUM_THREADS": "1", "HOME": str(directory), "BENTOML_HOME": str(directory / "bentoml")}
    variables |= {"BENTOML_DO_NOT_TRACK": "true", "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    command = what.command(bin_, port, directory)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, env=variables, stdout=log, stderr=log)
    try:
        url, body = f"http://127.0.0.1:{port}{what.path}", json.dumps(what.body).encode()
        deadline = time.monotonic() + _START_S
        while (said := ask(url, body)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{name} does not serve: {(directory / 'log').read_text()[-1500:]}")
            time.sleep(0.2)  # none of them tells anybody when it is up
        numbers = what.answer(json.loads(said))
        if len(numbers) != len(right) or any(abs(a - b) > _CLOSE for a, b in zip(numbers, right, strict=True)):
            raise AssertionError(f"{name} answers {said[:200]!r}, and not {right}")
        generator = wrk.Generator(directory / "wrk", wrk.Request(body, "application/json"), said)
        yield Target(name, url, generator, lambda: below(process.pid))
    finally:
        end(process)


def ask(url: str, body: bytes) -> bytes | None:
    with contextlib.suppress(OSError, AssertionError), Connection(url) as connection:
        return connection.ask("POST", urlsplit(url).path, body, "application/json")
    return None


def has_environment(package: str) -> bool:
    """Return whether a peer's environment is there, with what its requirements say now."""
    done = ENVIRONMENTS / package / ".ready"
    return done.exists() and done.read_bytes() == (PEERS / f"{package}.txt").read_bytes()


def environment(package: str) -> Path:
    """Return the `bin` of a peer's environment, made on first use and again when its requirements change."""
    directory, wanted = ENVIRONMENTS / package, PEERS / f"{package}.txt"
    if not has_environment(package):
        print(f"making {directory}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(directory)], check=True)
        pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        pip += os.environ.get("PIP_ARGS", "").split()
        subprocess.run([*pip, "-r", str(wanted)], check=True)
        (directory / ".ready").write_bytes(wanted.read_bytes())
    return directory / "bin"


def measure(targets: list[Target], rounds: int, seconds: int, failures: dict[str, str]) -> list[Target]:
    """Measure all that answer every request right, and return them; why others are left out goes into ``failures``."""

    def answering(targets: list[Target], seconds: int) -> list[Target]:
        return [target for target in targets if unless_wrong(failures, check, target, seconds)]

    targets = answering(targets, _WARM_S)
    order = random.Random(7)
    for _ in range(rounds):
        for count in CLIENTS:
            for target in order.sample(targets, len(targets)):
                if not unless_wrong(failures, load, target, count, seconds):
                    targets.remove(target)
    return answering(targets, 1)  # what was measured still answers right


def check(target: Target, seconds: int) -> None:
    for count in CLIENTS:  # by one as well, for Java's compiler: where requests travel together it sees few calls
        target.generator.check(target.url, clients=count, seconds=seconds)


def load(target: Target, clients: int, seconds: int) -> None:
    processes = target.processes()
    before = cpu_seconds(processes)
    found = target.generator.load(target.url, clients=clients, seconds=seconds)
    figures = target.figures.setdefault(str(clients), {"rate": [], "p50": [], "p99": [], "cpu": []})
    figures["rate"].append(found.rate)
    figures["p50"].append(found.p50)
    figures["p99"].append(found.p99)
    figures["cpu"].append((cpu_seconds(processes) - before) / found.requests * 1000)


def unless_wrong(failures: dict[str, str], act: Callable[..., None], target: Target, *arguments: int) -> bool:
    """Do something with a target; return False, and note why, when it failed a request. Marway must not."""
    try:
        act(target, *arguments)
    except wrk.WrongAnswers as exc:
        if target.name == MARWAY:
            raise
        failures[target.name] = str(exc)
        return False
    return True


def version(package: str) -> str:
    """Return a peer's pinned version."""
    lines = (PEERS / f"{package}.txt").read_text().splitlines()
    return next((line for line in lines if line.lower().startswith(f"{package}==")), "")


if __name__ == "__main__":
    sys.exit(main())
