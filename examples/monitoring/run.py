"""Serve a model, tell it what was right, see its quality fall, and be told: `make example-monitoring`."""

import base64
import json
import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import httpx
from standardwebhooks import Webhook

HERE = Path(__file__).resolve().parent
INTENT = HERE.parent / "intent"
MARWAY = (sys.executable, "-m", "marway")
QUALITY = {
    "kind": "classification",
    "metric": "accuracy",
    "prediction": "label",  # where an answer has its prediction: {"label": "set_alarm", "score": 0.99, …}
    "minimum": 0.85,
    "window": "1h",
}
TIMEOUT_S = 120
STOP_TIMEOUT_S = 30
Event = dict[str, Any]


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="marway-monitoring-") as directory, receiver() as (url, secret, events):
        home = Path(directory)
        command = [*MARWAY, "up", "--json", "--port", "0", "--home", str(home / "home"), "--engine", "native"]
        command += ["--config", str(settings(home, url, secret))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
            try:
                ready = until_ready(up)
                if ready is None:
                    return up.wait() or 1
                told = {"MARWAY_REGISTRY": str(ready["registry"]), "MARWAY_GATEWAY_ADMIN_URL": str(ready["admin"])}
                release(told)
                show(wait_for(events, "dev.marway.model.released"))
                watch(str(ready["gateway"]), told, events)
            finally:
                stopping = time.monotonic()
                up.send_signal(signal.SIGTERM)
                up.communicate(timeout=STOP_TIMEOUT_S)
        print(f"stopped in {time.monotonic() - stopping:.1f} s with exit status {up.returncode}")
        return up.returncode


def watch(gateway: str, told: dict[str, str], events: "Queue[Event]") -> None:
    """Have callers ask as they did in training, then otherwise, and say each time what was right."""
    lines = (INTENT / "data" / "heldout.tsv").read_text(encoding="utf-8").splitlines()
    asked = [(sentence, label) for label, sentence in (line.split("\t") for line in lines)]
    with httpx.Client(base_url=gateway, timeout=TIMEOUT_S, trust_env=False) as client:
        print("\nCallers ask, and what they meant is sent as feedback:")
        ask_and_tell(client, asked)
        print("\nA new client leaves out vowels, which nobody trained the model for:")
        last = ask_and_tell(client, [(re.sub("[aeiou]", "", sentence), label) for sentence, label in asked])
    print("\nMarway looks at quality every few seconds here. The event comes to the webhook, signed:")
    show(wait_for(events, "dev.marway.model.quality_below_minimum"))
    for words in (["quality", "intent"], ["events", "intent"], ["why", last]):
        marway(*words, told=told)


def ask_and_tell(client: httpx.Client, asked: list[tuple[str, str]]) -> str:
    """Ask each sentence, send all that was meant in one call, and return the id of the last prediction."""
    feedback, right = [], 0
    for sentence, meant in asked:
        answer = client.post("/predict/intent/PROD", content=sentence.encode())
        answer.raise_for_status()
        right += answer.json()["label"] == meant
        feedback.append({"prediction_id": answer.headers["x-prediction-id"], "truth": meant, "source": "example"})
    kept = client.post("/feedback", json=feedback)
    kept.raise_for_status()
    print(f"  {right} of {len(asked)} were right; POST /feedback → {kept.status_code} {kept.text}", flush=True)
    return str(feedback[-1]["prediction_id"])


@contextmanager
def receiver() -> Iterator[tuple[str, str, "Queue[Event]"]]:
    """Serve a webhook as a training pipeline would: check the signature, take the event, answer 204."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    events: Queue[Event] = Queue()

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            events.put(Webhook(secret).verify(body, dict(self.headers.items())))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Hook) as server:
        thread = threading.Thread(target=server.serve_forever, name="receiver")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/retrain", secret, events
        finally:
            server.shutdown()
            thread.join()


def settings(home: Path, url: str, secret: str) -> Path:
    """Write what `marway up` is told: where events go, and to look every few seconds in place of every minute."""
    webhooks = home / "webhooks.toml"
    webhooks.write_text(
        f'[[webhook]]\nname = "retrain"\nurl = "{url}"\nsecret = "{secret}"\n'
        'types = ["dev.marway.model.*"]\nmodels = ["intent"]\n'
    )
    webhooks.chmod(0o600)
    config = home / "up.toml"
    config.write_text(
        f'[gateway]\nwebhooks_file = "{webhooks}"\nquality_interval_s = 3.0\nobservations_flush_s = 1.0\n'
    )
    return config


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


def release(told: dict[str, str]) -> None:
    """Train and publish the intent model, say how good it must be, and release it."""
    train = [sys.executable, str(INTENT / "train.py"), "--registry", told["MARWAY_REGISTRY"], "--label", ""]
    subprocess.run(train, check=True, timeout=TIMEOUT_S)
    declared = ["--set", "observe=bodies", "--set", f"quality={json.dumps([QUALITY])}"]
    marway("serving", "intent", *declared, told=told, output=subprocess.DEVNULL)
    marway("release", "intent", "1.0", told=told)


def marway(*words: str, told: dict[str, str], output: int | None = None) -> None:
    """Run a command as one would on a terminal, and show it."""
    print(f"\n$ marway {shlex.join(words)}", flush=True)
    subprocess.run([*MARWAY, *words], env={**os.environ, **told}, stdout=output, check=True, timeout=TIMEOUT_S)


def wait_for(events: "Queue[Event]", kind: str) -> Event:
    """Return the first event of a type that comes to the webhook."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            event = events.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            sys.exit(f"no event {kind} came within {TIMEOUT_S} s")
        if event["type"] == kind:
            return event


def show(event: Event) -> None:
    print(f"  webhook ← {event['type']} {event['subject']} {json.dumps(event['data'])}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
