"""How each figure of the console is measured, in words that need no other page.

Pages show them where they are asked (`ui.measured` of `templates/macros.html`): links to a site of documents would
lead nowhere on a machine without a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["MEASURED"]

MEASURED: Final[Mapping[str, str]] = {
    # models
    "pods_ready": "Pods that say the version is ready and that this gateway sends requests to now, out of all pods "
    "that it knows. Each pod tells of every change at once, and is looked at every second beside.",
    "traffic": "Which part of a label's requests a version is to get: all, or what the rollout under way gives it. "
    "Callers are assigned by their key, so what was really served differs a little.",
    "requests_min": "Predictions that this process of this gateway ended in the last minute, with any outcome, "
    "whichever way they were asked for. Other gateways count their own; Prometheus adds them up.",
    "errors_min": "Those of them that failed by a fault of the model, its pod or Marway: the outcomes model_error, "
    "unavailable and timeout. What callers did wrong is not counted.",
    "rollouts": "Labels whose requests are divided between two versions now, or whose rollout is paused.",
    # one model
    "observed": "Predictions that gateways observed, as they stand in the store of observations. They are written in "
    "files, by default every 10 s, so the last seconds are missing.",
    "latency": "Milliseconds from a request's head to its answer's end, in the gateway. p50: half of them were faster; "
    "p99: one in a hundred was slower.",
    "quality": "What feedback says of predictions, joined by their ids; the bar is the 95 % interval, within which the "
    "true figure is but for one time in twenty.",
    "errors": "Observed predictions whose status is 500 or higher: the model's, its pod's or Marway's fault. What "
    "callers did wrong is not among them.",
    "tracebacks": "Errors with what the handler raised, as the pods' logs and answers told.",
    "loaded": "Bytes of memory that the pod measured of the version's workers when it had loaded; what it "
    "takes while it answers may be more.",
    "size": "Bytes of the archive as it is stored; archives of the same content are stored once.",
    "history": "The entries of the model's history in the registry: each change is one, and none is ever changed.",
    # one version, trying it, requests
    "golden": "Inputs that travel in the archive, and the answers that its handler gave when it was published. Each "
    "load is checked against them: numbers may lie apart by the tolerance, all else must be the same.",
    "proofs": "What somebody has seen these very bytes do: a pod that loaded them (`pod`), the publisher's own worker "
    "(`pack`), a replay of kept inputs, or consumers' contracts. A proof names the archive by its digest.",
    "compared_p50": "The median time of an answer, in milliseconds: one pod asks both versions the same golden inputs "
    "in turns, so that what else the machine does slows both alike.",
    "compared_stored": "The published golden answers of both versions to the same inputs; nothing was run.",
    "round_trip": "From sending in this browser to the answer's last byte; the gateway's own part is in Server-Timing.",
    "server_timing": "The gateway's header Server-Timing, in milliseconds: resolve (which version), pod (from sending "
    "to its answer), total (from the request's head to its answer).",
    "time_parts": "Seconds by the gateway's clock, with what the pod told: queue (before a worker was free), model (in "
    "the model server), way (there and back, and the sidecar), gateway (reading, converting, earlier attempts).",
    "duration": "From a request's head to its answer's end, in the gateway.",
    "feedback": "What `POST /feedback` said of a prediction; of several the newest counts, by its own time.",
}
"""By the name with which templates ask: `ui.measured("latency", "p99")`."""
