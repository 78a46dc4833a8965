"""Publish a version and watch it take over by itself, publish a bad one and watch it leave: `make example-release`."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
INTENT = HERE.parent / "intent"
MARWAY = (sys.executable, "-m", "marway")
CALLERS, RATE_PER_S = 4, 100.0
STEPS = ("--steps", "1,25,100", "--step-time", "60s")
TIMEOUT_S = 180
STOP_TIMEOUT_S = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write what happened, for picture.py to draw")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-release-") as directory:
        home = Path(directory)
        config = home / "up.toml"
        config.write_text("[gateway]\nobservations_flush_s = 1.0\n")  # kept inputs are there soon, for the replay
        command = [*MARWAY, "up", "--json", "--port", "0", "--home", str(home / "home"), "--engine", "native"]
        with subprocess.Popen([*command, "--config", str(config)], stdout=subprocess.PIPE, text=True) as up:
            try:
                ready = until_ready(up)
                if ready is None:
                    return up.wait() or 1
                took = tell(ready, args.record)
            finally:
                stopping = time.monotonic()
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=STOP_TIMEOUT_S)
        print(f"\n{took:.0f} s; stopped in {time.monotonic() - stopping:.1f} s with exit status {up.returncode}")
        return up.returncode


def tell(ready: dict[str, Any], record: Path | None) -> float:
    """Show a good release and a bad one, and return how many seconds it took."""
    begun = time.monotonic()
    told = {
        "MARWAY_REGISTRY": str(ready["registry"]),
        "MARWAY_GATEWAY_URL": str(ready["gateway"]),
        "MARWAY_GATEWAY_ADMIN_URL": str(ready["admin"]),
    }
    print("\n1.0 is trained, published and released, and callers ask it:")
    train("train.py", "1.0", seed=7, told=told)
    marway("serving", "intent", "--set", "observe=bodies", told=told, output=subprocess.DEVNULL)
    marway("release", "intent", "1.0", told=told)
    with calling(str(ready["gateway"]), str(ready["admin"])) as calls:
        print("\n1.1 is trained anew, from another seed. First: what would it have answered?")
        train("train.py", "1.1", seed=8, told=told)
        marway("replay", "intent", "--candidate", "1.1", "--last", "200", told=told)
        print("\nIt looks good, so it gets a part of the requests, and more as long as nothing speaks against it:")
        promoted = roll_out("1.1", told=told, good=True)

        print("\n1.2 is trained on a file in which two intents changed places. So did they in its own test file,")
        print("so its accuracy is as good as ever, and it is published:")
        train("mixed_up.py", "1.2", seed=9, told=told)
        rolled_back = roll_out("1.2", told=told, good=False)
    marway("rollout", "status", "intent", told=told)
    marway("history", "intent", "--limit", "10", told=told)
    of_bad = calls.answered["1.2"]
    print(
        f"\n{sum(calls.answered.values())} requests were answered, {calls.failed} failed. 1.1 took over in "
        f"{promoted:.0f} s. 1.2 was gone after {rolled_back:.0f} s: it had answered {of_bad} requests, "
        f"{calls.wrong['1.2']} of them wrong, and every caller of PROD is at 1.1."
    )
    if record is not None:
        record.write_text(json.dumps(calls.seconds))
    return time.monotonic() - begun


def roll_out(version: str, *, told: dict[str, str], good: bool) -> float:
    """Start a rollout, follow it to its end, and return how many seconds that took."""
    marway("rollout", "start", "intent", version, *STEPS, told=told)
    begun = time.monotonic()
    ended = marway("rollout", "watch", "intent", told=told, check=False)
    if (ended == 0) is not good:
        sys.exit(f"the rollout of {version} ended otherwise than it should: `marway rollout watch` gave {ended}")
    return time.monotonic() - begun


def train(script: str, version: str, *, seed: int, told: dict[str, str]) -> None:
    """Train the intent model and publish it; no label points at it."""
    path = INTENT / script if script == "train.py" else HERE / script
    words = ["--registry", told["MARWAY_REGISTRY"], "--label", "", "--version", version, "--seed", str(seed)]
    print(f"\n$ python {path.relative_to(HERE.parent.parent)} --version {version} --seed {seed}", flush=True)
    done = subprocess.run(
        [sys.executable, str(path), *words], check=True, timeout=TIMEOUT_S, stdout=subprocess.PIPE, text=True
    )
    print(
        "\n".join(line for line in done.stdout.splitlines() if line.startswith(("held-out", "published"))), flush=True
    )


@dataclass
class Calls:
    """What callers were answered: requests, and wrong answers, by the version that answered; each second of it."""

    answered: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    seconds: list[dict[str, Any]] = field(default_factory=list)


@contextmanager
def calling(gateway: str, admin: str) -> Iterator[Calls]:
    """Have callers ask all the time, 100 sentences a second, and note each second how a rollout stands."""
    lines = (INTENT / "data" / "heldout.tsv").read_text(encoding="utf-8").splitlines()
    asked = [(label, sentence) for label, sentence in (line.split("\t") for line in lines)]
    calls, stop, lock = Calls(), threading.Event(), threading.Lock()

    def call(number: int) -> None:
        due, place = time.monotonic(), number
        with httpx.Client(base_url=gateway, timeout=TIMEOUT_S, trust_env=False) as client:
            while not stop.wait(max(0.0, due - time.monotonic())):
                meant, sentence = asked[place % len(asked)]
                answer = client.post("/predict/intent/PROD", content=sentence.encode())
                with lock:
                    if answer.is_success:
                        version = answer.headers["x-model-version"]
                        calls.answered[version] += 1
                        calls.wrong[version] += answer.json()["label"] != meant
                    else:
                        calls.failed += 1
                place += CALLERS
                due = max(due + CALLERS / RATE_PER_S, time.monotonic() - 1.0)

    def note() -> None:
        begun = time.monotonic()
        with httpx.Client(base_url=admin, timeout=TIMEOUT_S, trust_env=False) as client:
            ended = False
            while not ended:  # with a last look at the end, or what ended just now would seem to run
                ended = stop.wait(1.0)
                found = client.get("/models/intent/labels/PROD/rollout")
                with lock:
                    second = {"at": time.monotonic() - begun, "answered": dict(calls.answered)}
                calls.seconds.append({**second, "rollout": found.json() if found.is_success else None})

    threads = [threading.Thread(target=call, args=(number,), name=f"caller-{number}") for number in range(CALLERS)]
    threads.append(threading.Thread(target=note, name="note"))
    for thread in threads:
        thread.start()
    try:
        yield calls
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def until_ready(up: "subprocess.Popen[str]") -> dict[str, Any] | None:
    """Show what `marway up` does until it is ready, and return what it says then; None if it ended instead."""
    assert up.stdout is not None
    for line in up.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "step":
            print(f"  {event['seconds'] or 0:5.1f} s  {event['name']}  {event['detail']}".rstrip(), flush=True)
        elif event["event"] == "ready":
            return event
    return None


def marway(*words: str, told: dict[str, str], output: int | None = None, check: bool = True) -> int:
    """Run a command as one would on a terminal, show it, and return its exit status."""
    print(f"\n$ marway {shlex.join(words)}", flush=True)
    done = subprocess.run([*MARWAY, *words], env={**os.environ, **told}, stdout=output, check=check, timeout=TIMEOUT_S)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
