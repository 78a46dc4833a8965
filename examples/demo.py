"""Bring everything up on free ports in a temporary home, ask both example models, stop: `make demo`."""

import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

EXAMPLES = Path(__file__).resolve().parent
STOP_TIMEOUT_S = 30


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="marway-demo-") as home:
        command = [sys.executable, "-m", "marway", "up", "--demo", "--json", "--port", "0", "--home", home]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
            try:
                gateway = until_ready(up)
                if gateway is None:
                    return up.wait() or 1
                ask(gateway, "intent", b"wake me up at half past six tomorrow", "text/plain")
                for sample in sorted((EXAMPLES / "digits" / "samples").glob("*.json")):
                    ask(gateway, "digits", sample.read_bytes(), "application/json", shown=sample.name)
            finally:
                stopping = time.monotonic()
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=STOP_TIMEOUT_S)
        print(f"stopped in {time.monotonic() - stopping:.1f} s with exit status {up.returncode}")
        return up.returncode


def until_ready(up: subprocess.Popen[str]) -> str | None:
    """Show what `marway up` does until it is ready, and return the gateway's URL; None if it ended instead."""
    assert up.stdout is not None
    for line in up.stdout:
        event = json.loads(line)
        if event["event"] == "output":
            print(f"    {event['line']}")
        elif event["event"] == "step":
            took = f"{event['seconds']:5.1f} s" if event["seconds"] is not None else " " * 7
            print(f"  {took}  {event['name']}  {event['detail']}".rstrip(), flush=True)
        elif event["event"] == "ready":
            return str(event["gateway"])
    return None


def ask(gateway: str, model: str, body: bytes, content_type: str, *, shown: str | None = None) -> None:
    """Send one input to a model and print its answer."""
    url = f"{gateway}/predict/{model}/PROD"
    answer = httpx.post(url, content=body, headers={"content-type": content_type}, timeout=120, trust_env=False)
    answer.raise_for_status()
    print(f"{model} ← {shown or body.decode()}\n  → {json.dumps(answer.json())}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
