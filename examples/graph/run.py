"""Answer a request from two models with a graph, release one of them, and see its steps: `make example-graph`."""

import argparse
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent
MARWAY = (sys.executable, "-m", "marway")
SENTENCE = "wake me up at this time tomorrow"
TIMEOUT_S = 180
STOP_TIMEOUT_S = 30
_KEPT_S = 20.0
"""A gateway writes what it keeps of predictions a second later, here."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="native", help="what serves both models: native or torchserve")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-graph-") as directory:
        home = Path(directory)
        (home / "up.toml").write_text("[gateway]\nobservations_flush_s = 1.0\n")
        command = [*MARWAY, "up", "--json", "--port", "0", "--home", str(home / "home"), "--engine", given.engine]
        with subprocess.Popen([*command, "--config", str(home / "up.toml")], stdout=subprocess.PIPE, text=True) as up:
            try:
                ready = until_ready(up)
                if ready is None:
                    return up.wait() or 1
                demonstrate(home, ready)
            finally:
                stopping = time.monotonic()
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=STOP_TIMEOUT_S)
        print(f"\nstopped in {time.monotonic() - stopping:.1f} s with exit status {up.returncode}")
        return up.returncode


def demonstrate(home: Path, ready: dict[str, Any]) -> None:
    """Publish both models and the graph over them, ask it, and release another version of one of them."""
    environment = {
        "MARWAY_REGISTRY": str(ready["registry"]),
        "MARWAY_GATEWAY_URL": str(ready["gateway"]),
        "MARWAY_GATEWAY_ADMIN_URL": str(ready["admin"]),
    }
    print("\nTwo models:")
    for model in ("intent", "digits"):
        train(model, "1.0", seed=7, environment=environment)
        marway("release", model, "1.0", environment=environment)
    print("\nA graph over them, with an answer that it must give, which the gateway has it prove:")
    picture = json.loads((EXAMPLES / "digits" / "samples" / "7.json").read_text())
    golden = {"input": {"text": SENTENCE, "picture": picture}, "output": {"wants": "set_alarm", "hour": "7"}}
    (home / "golden.jsonl").write_text(json.dumps(golden) + "\n")
    document, examples = str(HERE / "reminder.yaml"), str(home / "golden.jsonl")
    marway("graph", "check", document, "--registry", environment["MARWAY_REGISTRY"], environment=environment)
    marway(
        *("graph", "publish", document, "--model-name", "reminder", "--version", "1.0", "--examples", examples),
        environment=environment,
    )
    marway("release", "reminder", "1.0", environment=environment)
    marway("graph", "draw", "reminder", environment=environment)
    gateway = str(ready["gateway"])
    asked = ask(gateway, {"text": SENTENCE, "picture": picture}, shown="a picture of a 7")
    print("\nWithout a picture a node fails that need not answer:")
    ask(gateway, {"text": SENTENCE})
    print("\nAnother version of one of the models: the graph asks PROD of it, and so follows.")
    train("intent", "1.1", seed=8, environment=environment)
    marway("release", "intent", "1.1", environment=environment)
    ask(gateway, {"text": SENTENCE, "picture": picture}, shown="a picture of a 7")
    marway("graph", "show", "reminder", environment=environment)
    print("\nWhere the first answer came from, and what each of its steps did:")
    until = time.monotonic() + _KEPT_S
    while marway("why", asked, environment=environment, check=time.monotonic() > until, quiet=True) != 0:
        time.sleep(0.5)
    marway("why", asked, environment=environment)


def ask(gateway: str, body: dict[str, Any], *, shown: str = "no picture") -> str:
    """Ask the graph, print its answer and what it says of its nodes, and return the id of the prediction."""
    answer = httpx.post(f"{gateway}/predict/reminder", json=body, timeout=TIMEOUT_S, trust_env=False)
    answer.raise_for_status()
    print(f"reminder ← {body['text']!r} and {shown}\n  → {json.dumps(answer.json())}")
    for name in ("server-timing", "x-marway-graph"):
        if name in answer.headers:
            print(f"  {name}: {answer.headers[name]}", flush=True)
    return str(answer.headers["x-prediction-id"])


def train(model: str, version: str, *, seed: int, environment: dict[str, str]) -> None:
    """Train an example model and publish it; no label points at it."""
    words = ["--registry", environment["MARWAY_REGISTRY"], "--label", "", "--version", version, "--seed", str(seed)]
    print(f"$ python examples/{model}/train.py --version {version} --seed {seed}", flush=True)
    script = str(EXAMPLES / model / "train.py")
    done = subprocess.run(
        [sys.executable, script, *words], check=True, timeout=TIMEOUT_S, capture_output=True, text=True
    )
    print("\n".join(f"  {line}" for line in done.stdout.splitlines() if line.startswith(("held-out", "published"))))


def marway(*words: str, environment: dict[str, str], check: bool = True, quiet: bool = False) -> int:
    """Run a verb as a person would, and show it with what it prints; return its exit status."""
    if not quiet:
        print(f"$ marway {shlex.join(words)}", flush=True)
    done = subprocess.run(
        [*MARWAY, *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if not quiet or (check and done.returncode):
        for line in (done.stdout + done.stderr).splitlines():
            print(f"  {line}", flush=True)
    if check and done.returncode:
        sys.exit(f"marway {words[0]} ended with status {done.returncode}")
    return done.returncode


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


if __name__ == "__main__":
    sys.exit(main())
