"""Pods and containers that do not run, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from marway_ops.cluster.kubectl import Cluster
from marway_ops.cluster.objects import GATEWAY, POD, SIDECAR, Container, ContainerStatus, Event, Pod
from marway_ops.doctor.findings import Case, Finding, findings_of

__all__ = ["check_containers"]

Advice = Callable[[Pod, str], str]

_IMAGE_REASONS: Final = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
_CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_UNSCHEDULABLE: Final = (
    ("nvidia.com/gpu", "install the GPU's device plugin, add GPU nodes, or use the CPU images"),
    ("amd.com/gpu", "install the GPU's device plugin, add GPU nodes, or use the CPU images"),
    ("PersistentVolumeClaim", "see that the claim is bound: its storage class must exist and serve these nodes"),
    ("volume node affinity", "the volume is in another zone than free nodes: use a class that binds on first use"),
    ("Insufficient", "ask for less in the container's requests, or add nodes"),
    ("taint", "give the pods a toleration for the taint, or use other nodes"),
    ("affinity", "loosen nodeSelector or affinity, or label nodes"),
)
_READY_ADVICE: Final = {
    GATEWAY: "its /readyz says why: it needs the registry and one ready pod; see the findings about pods first",
    POD: "its /readyz says why: usually the runtime beside it is not up; kubectl logs POD -c runtime",
}


def check_containers(cluster: Cluster) -> Iterator[Finding]:
    """Yield what keeps pods from running and from being ready."""
    pods = tuple(pod for pod in cluster.of(Pod) if not pod.leaving)
    yield from findings_of("pending", "problem", _pending(pods))
    yield from findings_of("volumes", "problem", _unmounted(cluster, pods))
    yield from findings_of("image pull", "problem", _waiting(pods, _IMAGE_REASONS, _image_advice))
    yield from findings_of("container configuration", "problem", _waiting(pods, _CONFIG_REASONS, _config_advice))
    yield from findings_of("out of memory", "problem", _out_of_memory(pods))
    yield from findings_of("crash loop", "problem", _crashing(pods))
    yield from _probes(cluster, pods)


def _pending(pods: tuple[Pod, ...]) -> Iterator[Case]:
    for pod in pods:
        for condition in pod.conditions:
            if condition.type == "PodScheduled" and condition.status == "False":
                advice = next(
                    (advice for part, advice in _UNSCHEDULABLE if part in condition.message),
                    "kubectl describe pod says more",
                )
                yield Case(pod.name, condition.message or condition.reason, advice)


def _unmounted(cluster: Cluster, pods: tuple[Pod, ...]) -> Iterator[Case]:
    starting = {pod.name for pod in pods if pod.phase == "Pending"}
    for event in cluster.of(Event):
        if event.reason in ("FailedMount", "FailedAttachVolume") and event.involved in starting:
            yield Case(
                event.involved,
                event.message,
                "make the Secret, ConfigMap or claim that is named, in this namespace, or take the volume out",
            )


def _image_advice(pod: Pod, container: str) -> str:
    image = _container(pod, container).image
    return f"see that {image} exists, that nodes reach its registry, and that imagePullSecrets let them in"


def _config_advice(pod: Pod, container: str) -> str:
    return "make the Secret or ConfigMap that its environment names, with that key"


def _waiting(pods: tuple[Pod, ...], reasons: frozenset[str], advice: Advice) -> Iterator[Case]:
    for pod, status in _statuses(pods):
        waiting = status.waiting
        if waiting is not None and waiting.reason in reasons:
            said = f"{status.name} {waiting.reason}{f': {waiting.message}' if waiting.message else ''}"
            yield Case(pod.name, said, advice(pod, status.name))


def _out_of_memory(pods: tuple[Pod, ...]) -> Iterator[Case]:
    for pod, status in _statuses(pods):
        ended = status.last_terminated or status.terminated
        if ended is not None and ended.reason == "OOMKilled":
            yield Case(
                pod.name,
                f"{status.name} was killed for going over its memory limit",
                "raise the runtime's memory limit: models' budget is made of it; or give fewer workers or models a pod"
                if pod.component == POD and status.name != SIDECAR
                else "raise its memory limit, or lower max_body_bytes and the cache",
            )


def _crashing(pods: tuple[Pod, ...]) -> Iterator[Case]:
    for pod, status in _statuses(pods):
        waiting = status.waiting
        if waiting is not None and waiting.reason == "CrashLoopBackOff":
            ended = status.last_terminated
            why = f", last with status {ended.exit_code} ({ended.reason})" if ended is not None else ""
            yield Case(
                pod.name,
                f"{status.name} keeps ending{why}",
                f"kubectl logs {pod.name} -c {status.name} --previous says why, in its last line",
            )


def _probes(cluster: Cluster, pods: tuple[Pod, ...]) -> Iterator[Finding]:
    said = {(event.involved, event.message) for event in cluster.of(Event) if event.reason == "Unhealthy"}
    by_pod: dict[str, list[str]] = {}
    for name, message in sorted(said):
        by_pod.setdefault(name, []).append(message)
    yield from findings_of(
        "probes",
        "problem",
        (
            Case(pod.name, f"not ready: {' '.join(by_pod[pod.name])}", _READY_ADVICE.get(pod.component, ""))
            for pod in pods
            if not pod.ready and pod.name in by_pod and all(each.waiting is None for each in pod.statuses)
        ),
    )
    yield from findings_of(
        "probes",
        "warning",
        (
            Case(
                pod.name,
                " ".join(killed),
                "its process was restarted for not answering: more CPU, or see its logs (--previous)",
            )
            for pod in pods
            if pod.ready and (killed := [each for each in by_pod.get(pod.name, ()) if each.startswith("Liveness")])
        ),
    )


def _statuses(pods: tuple[Pod, ...]) -> Iterator[tuple[Pod, ContainerStatus]]:
    return ((pod, status) for pod in pods for status in pod.statuses)


def _container(pod: Pod, name: str) -> Container:
    return next((each for each in pod.spec.every_container if each.name == name), Container(name=name))
