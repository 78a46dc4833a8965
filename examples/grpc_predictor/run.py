"""Serve a model with a predictor, train it, release it, ask it, stop everything: `make example-grpc-predictor`."""

import argparse
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).resolve().parent
MARWAY = (sys.executable, "-m", "marway")
SENTENCES = ("wake me up at half past six tomorrow", "play some jazz", "will it rain in Oslo")
TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=Path, help="the model's files, as examples/intent/train.py --out leaves them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="marway-predictor-") as directory:
        home = Path(directory)
        files = given.files or train(home / "intent-files")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        models = home / "predictor-models"
        predictor = [sys.executable, str(HERE / "predictor.py"), "--models", str(models), "--address", address]
        told = {
            "MARWAY_SIDECAR_GRPC_PREDICTOR_ADDRESS": address,
            "MARWAY_SIDECAR_GRPC_PREDICTOR_MODELS": str(models),
            "MARWAY_SIDECAR_GRPC_PREDICTOR_FIRST_DOCUMENT": SENTENCES[0],
        }
        command = [*MARWAY, "up", "--json", "--port", "0", "--home", str(home / "home"), "--engine", "grpc-predictor"]
        command += ["--server", f"pod-0={shlex.join(predictor)}"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **told}) as up:
            try:
                ready = until_ready(up)
                if ready is None:
                    return up.wait() or 1
                release(home, files.resolve(), ready)
                ask(str(ready["gateway"]))
                there = ", ".join(sorted(each.name for each in models.glob("mv_*")))
                print(f"in the predictor's model directory: {there}")
            finally:
                stopping = time.monotonic()
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=STOP_TIMEOUT_S)
        print(f"stopped in {time.monotonic() - stopping:.1f} s with exit status {up.returncode}")
        return up.returncode


def train(out: Path) -> Path:
    """Train the intent model, and return the directory with its files."""
    script = HERE.parent / "intent" / "train.py"
    subprocess.run([sys.executable, str(script), "--out", str(out)], check=True, timeout=TIMEOUT_S)
    return out


def until_ready(up: subprocess.Popen[str]) -> dict[str, Any] | None:
    """Show what `marway up` does until it is ready, and return what it says then; None if it ended instead."""
    assert up.stdout is not None
    for line in up.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == "step":
            print(f"  {event['seconds'] or 0:5.1f} s  {event['name']}  {event['detail']}".rstrip(), flush=True)
        elif event["event"] == "ready":
            return event
    return None


def release(home: Path, files: Path, ready: dict[str, Any]) -> None:
    """Pack the files as a bundle with a golden example, publish it, and point PROD at it, which a pod proves first."""
    golden = {"input": SENTENCES[0], "output": {"result": "set_alarm"}}
    (home / "golden.jsonl").write_text(json.dumps(golden) + "\n")
    told = {
        "MARWAY_REGISTRY": str(ready["registry"]),
        "MARWAY_GATEWAY_ADMIN_URL": str(ready["admin"]),
    }
    for words in (
        ["pack", "--backend", "grpc-predictor", "--directory", str(files), "--model-name", "intent", "--version", "1.0",
         "--examples", "golden.jsonl"],
        ["publish", "intent.bundle"],
        ["release", "intent", "1.0"],
    ):  # fmt: skip
        print(f"$ marway {shlex.join(words)}", flush=True)
        subprocess.run([*MARWAY, *words], cwd=home, env={**os.environ, **told}, check=True, timeout=TIMEOUT_S)


def ask(gateway: str) -> None:
    """Ask the model what each sentence means."""
    for sentence in SENTENCES:
        url = f"{gateway}/predict/intent/PROD"
        answer = httpx.post(url, content=sentence.encode(), timeout=TIMEOUT_S, trust_env=False)
        answer.raise_for_status()
        print(f"intent ← {sentence}\n  → {json.dumps(answer.json())}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
