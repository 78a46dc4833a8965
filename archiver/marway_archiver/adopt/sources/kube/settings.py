"""What becomes of what an `InferenceService`, a `ServingRuntime` or a `Predictor` says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from marway.serving import ServingSettings
from marway_archiver.adopt.found import Outcome, Setting
from marway_archiver.adopt.sources.files import leaves
from marway_archiver.adopt.sources.kube.objects import KubeObject, mapping

__all__ = ["pods_words", "serving_of", "settings_of"]

_PODS: Final = "of the pods: their own manifest (docs/kubernetes.md)"
_SCALING: Final = "how many pods there are: the replicas or the autoscaler of their own manifest (docs/kubernetes.md)"
_STEPS: Final = "no part of a version: a graph (docs/graphs.md) can have it as a step before or after the model"
_BOOKKEEPING: Final = frozenset(
    {"creationTimestamp", "generation", "managedFields", "resourceVersion", "uid", "selfLink", "ownerReferences",
     "finalizers", "deletionTimestamp"}
)  # fmt: skip
"""What Kubernetes itself writes into `metadata`: nobody's settings."""
_HIDDEN: Final = re.compile(r"(?i)(secret|password|token|credential|access_?key|last-applied-configuration)")
_RULES: Final[Sequence[tuple[str, Outcome, str]]] = (
    (r"metadata\.name", "kept", "{name}"),
    (r"metadata\.namespace", "none", "a registry has one space of names: models of one name need two registries"),
    (r"metadata\.annotations\.serving\.kserve\.io/deploymentMode", "none", "pods serve any number of models"),
    (r"metadata\.annotations\.serving\.kserve\.io/(secretKey|schemaPath)", "kept", "the files are taken"),
    (r"metadata\.annotations\.serving\.kserve\.io/enable-prometheus-scraping", "elsewhere", "/metrics of the pods"),
    (r"metadata\.annotations\.serving\.kserve\.io/enable-metric-aggregation", "elsewhere", "/metrics of the pods"),
    (r"metadata\.annotations\.autoscaling\..*", "elsewhere", _SCALING),
    (r"metadata\.annotations\..*last-applied-configuration", "none", "kubectl's own copy of the object"),
    (r"metadata\.labels\.modelClass", "kept", "the implementation in the bundle's model-settings.json"),
    (r"metadata\.(annotations|labels)\..*", "none", "records of a version have no labels of Kubernetes"),
    (r".*\.minReplicas", "changed", "{pods}"),
    (r".*\.(maxReplicas|scaleTarget|scaleMetric|autoScaling.*)", "elsewhere", _SCALING),
    (r".*\.containerConcurrency", "elsewhere", "the gateway's setting max_requests_per_pod, for all models"),
    (r".*predictor\.timeout", "kept", "predict_timeout_s"),
    (r".*\.canaryTrafficPercent", "changed", "{canary}"),
    (r".*\.canary\w*", "none", "a rollout of Marway's: `marway rollout start`"),
    (r".*\.logger\.url", "none", "observations go to the gateway's setting observations, not to a service"),
    (r".*\.logger\.mode", "changed", "observe: bodies, which keeps inputs and outputs (docs/observations.md)"),
    (r".*\.batcher\.maxBatchSize", "changed", "max_batch_rows, once golden examples prove batches"),
    (r".*\.batcher\..*", "none", "Marway batches what waits anyway, and lets no request wait for others"),
    (r"spec\.(transformer|explainer)\..*", "elsewhere", _STEPS),
    (r".*\.(serviceAccountName|storageKey)", "kept", "its keys fetch the files now; pods have the registry's"),
    (r".*\.(storageUri|storage\..*|path|schemaPath)", "kept", "the files are taken into the registry"),
    (r".*\.(modelFormat|modelType)\..*", "kept", "the backend {backend}"),
    (r".*\.runtime(\.name)?", "changed", "pods of the backend {backend}"),
    (r".*\.protocolVersion", "kept", "the gateway speaks v1, v2 and TorchServe's for every model"),
    (r".*\.(runtimeVersion|image|imagePullPolicy|imagePullSecrets.*)", "elsewhere", _PODS),
    (r".*\.args\[.*", "elsewhere", "an argument of the server in the pods: their own manifest"),
    (r".*\.command\[.*", "elsewhere", "a command of the pods: their own manifest"),
    (r".*\.env\[.*", "elsewhere", "a variable of the server in the pods: their own manifest"),
    (r".*\.(resources|ports|livenessProbe|readinessProbe|startupProbe|securityContext|volumeMounts|lifecycle)[.\[].*",
     "elsewhere", _PODS),
    (r".*\.(nodeSelector|tolerations|affinity|volumes|topologySpreadConstraints|priorityClassName|initContainers)"
     r"([.\[].*)?", "elsewhere", _PODS),
    (r".*\.gpu", "elsewhere", "the sidecar's setting device, and pools: docs/sidecar.md"),
    (r".*\.(workerSpec|deploymentStrategy|minAvailable|labels|annotations)([.\[].*)?", "elsewhere", _PODS),
    (r".*\.name", "kept", "of KServe's own container"),
)  # fmt: skip
_COMPILED: Final = tuple((re.compile(pattern), outcome, becomes) for pattern, outcome, becomes in _RULES)


def settings_of(thing: KubeObject, words: Mapping[str, str], *, named: bool = False) -> Iterator[Setting]:
    """Yield what becomes of each field of an object; ``words`` fill what depends on the model.

    Args:
        thing: The object; its status is none of its settings.
        words: `name`, `backend`, `pods` and `canary`.
        named: Whether settings are called `KIND NAME field`, for those that are of no one model.
    """
    for part in ("metadata", "spec"):
        for path, value in leaves(mapping(thing.document.get(part)), part):
            if part == "metadata" and re.split(r"[.\[]", path)[1] in _BOOKKEEPING:
                continue
            shown = "(hidden)" if _HIDDEN.search(path) and not path.endswith("secretKey") else value
            outcome, becomes = _outcome(path)
            text = becomes.format_map({"name": "", "backend": "", "pods": _SCALING, "canary": "", **words})
            yield Setting(f"{thing} {path}" if named else path, shown, outcome, text)


def _outcome(path: str) -> tuple[Outcome, str]:
    for pattern, outcome, becomes in _COMPILED:
        if pattern.fullmatch(path):
            return outcome, becomes
    return "none", "there is nothing like it"


def serving_of(predictor: Mapping[str, Any]) -> ServingSettings:
    """Return the serving settings that stand for what a predictor says."""
    given: dict[str, Any] = {}
    replicas = predictor.get("minReplicas")
    if isinstance(replicas, int) and replicas >= 1:
        given["pods"] = replicas
    elif replicas == 0:
        given["min_workers"] = 0
    seconds = predictor.get("timeout")
    if isinstance(seconds, int) and seconds > 0:
        given["predict_timeout_s"] = float(seconds)
    rows = mapping(predictor.get("batcher")).get("maxBatchSize")
    if isinstance(rows, int) and rows > 0:
        given["max_batch_rows"] = rows
    if mapping(predictor.get("logger")).get("mode") in ("all", "request", "response"):
        given["observe"] = "bodies"
    return ServingSettings(**given)


def pods_words(predictor: Mapping[str, Any]) -> str:
    """Return what becomes of `minReplicas`."""
    if predictor.get("minReplicas") == 0:
        return "min_workers 0: its workers end when nobody asks; pods stay, and serve other models"
    return f"pods {serving_of(predictor).pods}: so many pods serve the version in normal load"
