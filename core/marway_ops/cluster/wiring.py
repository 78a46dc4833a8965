"""What stands around the pods: Deployments, Services and their endpoints, versions, budgets, policies, autoscalers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from marway_ops.cluster.kubectl import Cluster
from marway_ops.cluster.objects import (
    GATEWAY,
    MARWAY,
    POD,
    Autoscaler,
    Container,
    Deployment,
    DisruptionBudget,
    EndpointSlice,
    NetworkPolicy,
    Pod,
    Service,
    Volume,
)
from marway_ops.doctor.findings import Case, Finding, findings_of

__all__ = ["check_wiring"]

_SERVICE_OF: Final = "kubernetes.io/service-name"
_VERSIONED: Final = ("gateway", "sidecar", "runtime")
"""Containers of our images, in the order in which they are named."""
_BAD_CONDITIONS: Final = {"ScalingActive": "False", "AbleToScale": "False", "Ready": "False", "Fallback": "True"}


def check_wiring(cluster: Cluster) -> Iterator[Finding]:
    """Yield what is missing or does not fit together."""
    yield from _deployments(cluster)
    yield from _services(cluster)
    yield from _versions(cluster)
    yield from _protected(cluster)
    yield from _secrets(cluster)
    yield from findings_of("autoscaling", "warning", _autoscalers(cluster))


def _deployments(cluster: Cluster) -> Iterator[Finding]:
    for component, what in ((GATEWAY, "gateway"), (POD, "pods")):
        found = [each for each in cluster.of(Deployment) if each.component == component]
        if not found:
            yield Finding(
                f"{what} Deployment",
                "problem",
                f"none in namespace {cluster.namespace} with the label {MARWAY} and component {component}",
                "is it another --namespace or --context? else kubectl apply -k an overlay of deploy/kubernetes",
            )
        for deployment in found:
            ready, wanted = deployment.ready_replicas, deployment.replicas
            said = next(
                (
                    f"; {condition.message}"
                    for condition in deployment.conditions
                    if condition.type in ("Progressing", "ReplicaFailure")
                    and (condition.type == "ReplicaFailure") == (condition.status == "True")
                ),
                "",
            )
            text = f"{deployment.name}: {ready} of {wanted} ready{said}"
            if ready >= wanted and wanted > 0 and not said:
                yield Finding(f"{what} Deployment", "ok", text)
            elif wanted == 0:
                yield Finding(f"{what} Deployment", "problem", text, f"kubectl scale deployment {deployment.name}")
            else:
                yield Finding(
                    f"{what} Deployment",
                    "warning" if ready else "problem",
                    text,
                    "the findings about its pods say why; kubectl rollout status tells when it is done",
                )


def _services(cluster: Cluster) -> Iterator[Finding]:
    ours = [service for service in cluster.of(Service) if service.component == POD]
    headless = [service for service in ours if service.cluster_ip == "None"]
    for service in ours:
        if service not in headless:
            yield Finding(
                "Service of the pods",
                "problem",
                f"{service.name} has a cluster IP, so gateways see one address instead of every pod",
                "make it anew with clusterIP: None",
            )
    if not ours and "services" not in cluster.unread:
        yield Finding(
            "Service of the pods",
            "problem",
            f"none in namespace {cluster.namespace} with component {POD}",
            "apply the base again: gateways find pods through a headless Service",
        )
    for service in headless:
        addresses = {
            address
            for each in cluster.of(EndpointSlice)
            if each.labels.get(_SERVICE_OF) == service.name
            for endpoint in each.endpoints
            for address in endpoint.addresses
        }
        matching = [pod for pod in cluster.of(Pod) if service.selector.items() <= pod.labels.items()]
        if addresses:
            yield Finding("Service of the pods", "ok", f"{service.name}: {len(addresses)} addresses")
        elif "endpointslices.discovery.k8s.io" not in cluster.unread:
            selector = ", ".join(f"{name}={value}" for name, value in service.selector.items())
            yield Finding(
                "Service of the pods",
                "problem",
                f"{service.name} has no endpoint: "
                + (
                    f"none of {len(matching)} pods has an address yet"
                    if matching
                    else f"no pod is {selector or '(none)'}"
                ),
                "the findings about pods say why" if matching else "let its selector name the pods' labels",
            )


def _versions(cluster: Cluster) -> Iterator[Finding]:
    tags: dict[str, set[str]] = {}
    for pod in (*cluster.pods_of(GATEWAY), *cluster.pods_of(POD)):
        for container in pod.spec.every_container:
            if container.name in _VERSIONED:
                tags.setdefault(container.name, set()).add(_tag(container.image))
    if not tags:
        return
    text = "; ".join(f"{name} {', '.join(sorted(tags[name]))}" for name in _VERSIONED if name in tags)
    if len(set().union(*tags.values())) > 1:
        yield Finding(
            "versions",
            "warning",
            text,
            "give all images one tag and let the rollout end: neighbouring versions work together, others may not",
        )
    else:
        yield Finding("versions", "ok", text)


def _tag(image: str) -> str:
    """Return an image's tag; its digest, shortened, if that is all there is."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest[:19] or "latest"


def _protected(cluster: Cluster) -> Iterator[Finding]:
    for component, what in ((GATEWAY, "gateways"), (POD, "pods")):
        pods = cluster.pods_of(component)
        if not pods:
            continue
        if "poddisruptionbudgets.policy" not in cluster.unread:
            covered = _uncovered_by_budget(cluster, pods)
            if covered:
                yield Finding(
                    "disruption budget",
                    "warning",
                    f"none for {what}, such as {covered}",
                    "apply the base's PodDisruptionBudget: draining nodes may else take all of them at once",
                )
        if "networkpolicies.networking.k8s.io" not in cluster.unread:
            open_one = next((pod.name for pod in pods if not _guarded(cluster, pod)), None)
            if open_one is not None:
                yield Finding(
                    "network policy",
                    "warning",
                    f"none restricts who reaches {what}, such as {open_one}",
                    "apply the base's NetworkPolicies: sidecars take requests from whoever reaches them"
                    if component == POD
                    else "apply the base's NetworkPolicies: the admin port is for few",
                )


def _uncovered_by_budget(cluster: Cluster, pods: tuple[Pod, ...]) -> str | None:
    selectors = [budget.selector for budget in cluster.of(DisruptionBudget) if budget.selector is not None]
    return next((pod.name for pod in pods if not any(each.matches(pod.labels) for each in selectors)), None)


def _guarded(cluster: Cluster, pod: Pod) -> bool:
    return any(
        "Ingress" in policy.policy_types and policy.pod_selector.matches(pod.labels)
        for policy in cluster.of(NetworkPolicy)
    )


def _secrets(cluster: Cluster) -> Iterator[Finding]:
    if cluster.secrets is None:
        return
    missing = set()
    for deployment in cluster.of(Deployment):
        spec = deployment.pod
        parts: tuple[Container | Volume, ...] = (*spec.every_container, *spec.volumes)
        for secret in (secret for part in parts for secret in part.secrets()):
            if not secret.optional and secret.name and secret.name not in cluster.secrets:
                missing.add((secret.name, deployment.name))
    yield from findings_of(
        "secrets",
        "problem",
        (
            Case(deployment, f"there is no Secret {secret}", f"kubectl create secret generic {secret} …, as docs say")
            for secret, deployment in sorted(missing)
        ),
    )


def _autoscalers(cluster: Cluster) -> Iterator[Case]:
    for each in cluster.of(Autoscaler):
        for condition in each.conditions:
            if _BAD_CONDITIONS.get(condition.type) == condition.status and condition.reason != "ScalingDisabled":
                yield Case(
                    f"{each.kind or 'autoscaler'} {each.name}",
                    f"{condition.reason}: {condition.message}",
                    "it scales nothing until its metrics come: metrics-server, or Prometheus and KEDA, must serve them",
                )
