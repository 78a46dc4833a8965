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
    # one model
    "observed": "Predictions that gateways observed, as they stand in the store of observations. They are written in "
    "files, by default every 10 s, so the last seconds are missing.",
    "latency": "Milliseconds from a request's head to its answer's end, in a gateway, of what all gateways kept. "
    "p50: half of them were faster; p99: one in a hundred was slower. The last seconds may be missing.",
    "quality": "What feedback says of predictions, joined by their ids; the bar is the 95 % interval, within which the "
    "true figure is but for one time in twenty.",
    "errors": "Kept predictions that failed by a fault of the model, its pod or Marway: the outcomes model_error, "
    "unavailable and timeout. What callers did wrong is not among them.",
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
    # pods
    "pod_state": "What the pod says of itself, over a stream that it is silent on for at most a second, and whether "
    "this gateway sends it requests: not while it drains, is ejected, or its model server is down.",
    "pod_requests": "Requests that this process of this gateway has in flight at the pod now. Other gateways have "
    "their own; the pod's metric marway_sidecar_requests_in_flight has all.",
    "pod_memory": "Bytes that versions take of the pod's budget: of a loaded one what its workers were measured to "
    "have, weights that they share counted once; of one that is being loaded what was reserved for it.",
    "device_memory": "Bytes in use on the GPU by anybody, as the driver says, and how much of it versions here count "
    "for.",
    "workers": "Processes of the model server that the version has. A version without one has it started by its next "
    "request.",
    "version_requests": "Of the version on this pod, from all gateways: being answered, and waiting for a worker.",
    "unloaded": "Why a version that was loaded here is not any more: for the memory that others needed, because nobody "
    "had asked for long, or because somebody had it unloaded. The metric marway_sidecar_model_evictions counts the "
    "first two.",
    # rollouts
    "rollout_percent": "Of the label's requests, in how many of a hundred the candidate is to answer now. Callers are "
    "assigned by their key, so what was really served differs a little.",
    "verdict": "Whether the candidate surely is worse than the base by more than the guard's limit, or surely is not. "
    "Both hold however often one looks; a candidate no worse is rolled back with at most the probability alpha.",
    "estimate": "How much worse the candidate is so far: the difference of the two versions' fractions of requests, "
    "over all steps and all gateways. Negative where it is better.",
    "bound": "The candidate surely is not worse than this, at the rollout's level. It falls as requests are counted; "
    "once it is below the limit the guard lets the next step begin.",
    "evidence": "How far the case against the candidate has come, from 0, none, to 1, at which it is rolled back: the "
    "logarithm of what betting against it has won, over what is needed.",
    "step_time": "For how long this step was watched by gateways. When a step takes longer than its time without a "
    "verdict of all guards, the rollout pauses for a person.",
    # shadow copies
    "agreement": "Of the requests of which both answers could be looked into, in how many both decide alike: the same "
    "class, the same text, the same rank.",
    "equal": "Of the same requests, in how many the answers are the same altogether, numbers within the tolerance of "
    "golden answers.",
    "dropped": "Copies that were not made or not answered, by why: they give way to everything else, so that none of "
    "them delays a request.",
    "model_latency": "Milliseconds that the model server took, within 5 %: p50 of half the calls at most, p99 of 99 in "
    "a hundred.",
    # events
    "event_time": "When it happened, by the clock of whoever did it. Events are raised by one gateway among all, a "
    "moment later.",
}
"""By the name with which templates ask: `ui.measured("latency", "p99")`."""
