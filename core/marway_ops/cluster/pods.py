"""What pods tell of themselves: why containers do not run, and what models' code could get at and should not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from marway_ops.cluster.kubectl import Cluster, Kind
from marway_ops.cluster.objects import GATEWAY, POD, SIDECAR, Container, Part, Pod
from marway_ops.shell.output import Case

__all__ = ["check_containers", "check_lockdown"]

_IMAGE_REASONS: Final = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
_CONFIG_REASONS: Final = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
_UNSCHEDULABLE: Final = (
    ("nvidia.com/gpu", "install the GPU's device plugin, add GPU nodes, or use the CPU images"),
    ("amd.com/gpu", "install the GPU's device plugin, add GPU nodes, or use the CPU images"),
    ("PersistentVolumeClaim", "see that the claim is bound: its storage class must exist and serve these nodes"),
    ("volume node affinity", "the volume is in another zone than free nodes: use a class that binds on first use"),
    ("Insufficient", "ask for less in the container's requests, or add nodes"),
    ("taint", "give the pods a toleration for the taint, or use other nodes"),
    ("affinity", "loosen nodeSelector or affinity, or label nodes"),
    ("", "kubectl describe pod says more"),
)
_READY_ADVICE: Final = {
    GATEWAY: "its /readyz says why: it needs the registry and one ready pod; see the findings about pods first",
    POD: "its /readyz says why: usually its model server is not up; kubectl logs POD -c runtime (or triton, mlserver)",
}
_TOKEN_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  # a path
_TOKENS: Final = "service account token"
_CREDENTIAL: Final = re.compile(
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|WEB_IDENTITY_TOKEN_FILE|CONTAINER_AUTHORIZATION_TOKEN.*)"
    r"|GOOGLE_APPLICATION_CREDENTIALS|AZURE_FEDERATED_TOKEN_FILE|AZURE_CLIENT_SECRET|.*(PASSWORD|_SECRET|_TOKEN)"
)
"""Variables that hold credentials or say where they are, those that clouds' webhooks add to every container too."""


def check_containers(cluster: Cluster) -> Iterator[Case]:
    """Yield what keeps pods from running and from being ready."""
    pods = [pod for pod in cluster.pods if not pod.leaving]
    events = cluster.of(Kind.EVENTS)
    for pod in pods:
        for condition in pod.conditions:
            if condition.text("type") == "PodScheduled" and condition.text("status") == "False":
                message = condition.text("message")
                advice = next(advice for part, advice in _UNSCHEDULABLE if part in message)
                yield Case("pending", "problem", message or condition.text("reason"), advice, pod.name)
    starting = {pod.name for pod in pods if pod.text("status.phase") == "Pending"}
    for event in events:
        name = event.text("involvedObject.name")
        if event.text("reason") in ("FailedMount", "FailedAttachVolume") and name in starting:
            advice = "make the Secret, ConfigMap or claim that is named, in this namespace, or take the volume out"
            yield Case("volumes", "problem", event.text("message"), advice, name)
    for pod in pods:
        for status in pod.statuses:
            yield from _state(pod, status)
    unhealthy: dict[str, set[str]] = {}
    for event in events:
        if event.text("reason") == "Unhealthy":
            unhealthy.setdefault(event.text("involvedObject.name"), set()).add(event.text("message"))
    for pod in pods:
        yield from _probes(pod, sorted(unhealthy.get(pod.name, ())))


def _state(pod: Pod, status: Part) -> Iterator[Case]:
    name, waiting = status.name, status.part("state.waiting")
    reason, message = waiting.text("reason"), waiting.text("message")
    found = f"{name} {reason}{f': {message}' if message else ''}"
    if reason in _IMAGE_REASONS:
        image = next((each.text("image") for each in pod.spec.containers if each.name == name), "")
        advice = f"see that {image} exists, that nodes reach its registry, and that imagePullSecrets let them in"
        yield Case("image pull", "problem", found, advice, pod.name)
    if reason in _CONFIG_REASONS:
        advice = "make the Secret or ConfigMap that its environment names, with that key"
        yield Case("container configuration", "problem", found, advice, pod.name)
    ended = status.part("lastState.terminated")
    if (ended or status.part("state.terminated")).text("reason") == "OOMKilled":
        yield Case(
            "out of memory",
            "problem",
            f"{name} was killed for going over its memory limit",
            "raise the runtime's memory limit: models' budget is made of it; or give fewer workers or models a pod"
            if pod.component == POD and name != SIDECAR
            else "raise its memory limit, or lower max_body_bytes and the cache",
            pod.name,
        )
    if reason == "CrashLoopBackOff":
        why = f", last with status {ended.at('exitCode', 0)} ({ended.text('reason')})" if ended else ""
        advice = f"kubectl logs {pod.name} -c {name} --previous says why, in its last line"
        yield Case("crash loop", "problem", f"{name} keeps ending{why}", advice, pod.name)


def _probes(pod: Pod, messages: list[str]) -> Iterator[Case]:
    killed = [each for each in messages if each.startswith("Liveness")]
    if pod.ready and killed:
        advice = "its process was restarted for not answering: more CPU, or see its logs (--previous)"
        yield Case("probes", "warning", " ".join(killed), advice, pod.name)
    if messages and not pod.ready and not any(each.part("state.waiting") for each in pod.statuses):
        advice = _READY_ADVICE.get(pod.component, "")
        yield Case("probes", "problem", f"not ready: {' '.join(messages)}", advice, pod.name)


def check_lockdown(cluster: Cluster) -> Iterator[Case]:
    """Yield credentials, writable stores and tokens where none should be."""
    for pod in cluster.pods_of(POD):
        for container in pod.runtimes:
            yield from _credentials(pod, container)
            mount = _store(container)
            if mount and not mount.at("readOnly", False):
                found = f"container {container.name} may write to {mount.text('mountPath')}"
                advice = "add readOnly: true to that mount: a model could else replace others"
                yield Case("store in the runtime", "problem", found, advice, pod.name)
        if _has_api_token(pod):
            found = "the API's token of its service account is mounted"
            advice = "set automountServiceAccountToken: false: nothing in a pod asks the Kubernetes API"
            yield Case(_TOKENS, "problem", found, advice, pod.name)
    for pod in cluster.pods_of(GATEWAY):
        asks = any(
            "kubernetes://" in f"{each.variable('MARWAY_GATEWAY_PODS')} {each.flag('--pods')}"
            for each in pod.spec.containers
        )
        elsewhere = any(each.variable("MARWAY_GATEWAY_KUBERNETES_CREDENTIALS_DIR") for each in pod.spec.containers)
        if _has_api_token(pod) and not asks:
            found = "the API's token is mounted, and its pods are not found by kubernetes://"
            advice = "set automountServiceAccountToken: false, or name the pods by kubernetes://SERVICE:PORT"
            yield Case(_TOKENS, "warning", found, advice, pod.name)
        if asks and not _has_api_token(pod) and not elsewhere:
            found = "its pods are to be found by kubernetes://, and no token for the API is mounted"
            advice = "add the component endpointslices, which mounts one and brings its Role, or use dns://"
            yield Case(_TOKENS, "problem", found, advice, pod.name)


def _credentials(pod: Pod, container: Container) -> Iterator[Case]:
    secret_volumes = {volume.name for volume in pod.spec.volumes if [*volume.secrets()]}
    token_volumes = {volume.name for volume in pod.spec.volumes if volume.has_token}
    found = [f"secret {secret.name} in its environment" for secret in container.secrets()]
    found += [f"variable {each.name}" for each in container.env if _CREDENTIAL.fullmatch(each.name)]
    for mount in container.mounts:
        if mount.name in secret_volumes:
            found.append(f"secret volume {mount.name}")
        elif mount.name in token_volumes and mount.text("mountPath") != _TOKEN_MOUNT:
            found.append(f"token volume {mount.name}")
    if found:
        yield Case(
            "credentials in the runtime",
            "problem",
            f"container {container.name} has {', '.join(dict.fromkeys(found))}",
            "models' code reads them: give credentials to the sidecar alone; where a webhook adds them to every "
            f"container, have it skip {container.name} (on EKS the annotation eks.amazonaws.com/skip-containers)",
            pod.name,
        )


def _store(container: Container) -> Part | None:
    """Return the mount that holds the archive store, or a server's model repository; None where it cannot be told."""
    path = container.flag("--model-store") or container.variable("MARWAY_RUNTIME_MODEL_STORE")
    if path:
        parents = {str(PurePosixPath(path)), *map(str, PurePosixPath(path).parents)}
        found = [mount for mount in container.mounts if str(PurePosixPath(mount.text("mountPath"))) in parents]
        return max(found, key=lambda mount: len(mount.text("mountPath")), default=None)
    return next((mount for mount in container.mounts if mount.name in ("store", "models")), None)


def _has_api_token(pod: Pod) -> bool:
    return any(
        mount.text("mountPath") == _TOKEN_MOUNT for container in pod.spec.containers for mount in container.mounts
    )
