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
    "requests_min": "Predictions that this gateway (all of its processes that answer this page: one) ended in the last "
    "minute, with any outcome. Other gateways count their own; Prometheus adds them up.",
    "errors_min": "Those of them that failed by a fault of the model, its pod or Marway: status 500 and higher. What "
    "callers did wrong, below 500, is not counted.",
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
