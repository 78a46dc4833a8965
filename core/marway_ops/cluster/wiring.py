"""What stands around the pods: Deployments, Services and their endpoints, versions, budgets, policies, autoscalers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from marway_ops.cluster.kubectl import Cluster, Kind
from marway_ops.cluster.objects import GATEWAY, MARWAY, POD, Container, Object, Part, PodSpec, Volume, selects
from marway_ops.shell.output import Case

__all__ = ["check_wiring"]

_SERVICE_OF: Final = "kubernetes.io/service-name"
_SERVICE: Final = "Service of the pods"
_VERSIONED: Final = ("gateway", "sidecar", "runtime")
"""Containers of our images, in the order in which they are named."""
_BAD_CONDITIONS: Final = {"ScalingActive": "False", "AbleToScale": "False", "Ready": "False", "Fallback": "True"}


def check_wiring(cluster: Cluster) -> Iterator[Case]:
    """Yield what is missing or does not fit together, and what was found well."""
    yield from _deployments(cluster)
    yield from _services(cluster)
    yield from _versions(cluster)
    yield from _protected(cluster, GATEWAY, "gateways", "the admin port is for few")
    yield from _protected(cluster, POD, "pods", "sidecars take requests from whoever reaches them")
    yield from _secrets(cluster)
    for each in cluster.of(Kind.AUTOSCALERS, Kind.SCALED_OBJECTS):
        for condition in each.conditions:
            bad = _BAD_CONDITIONS.get(condition.text("type")) == condition.text("status")
            if bad and condition.text("reason") != "ScalingDisabled":
                found = f"{condition.text('reason')}: {condition.text('message')}"
                advice = (
                    "it scales nothing until its metrics come: metrics-server, or Prometheus and KEDA, must serve them"
                )
                yield Case("autoscaling", "warning", found, advice, f"{each.text('kind') or 'autoscaler'} {each.name}")


def _deployments(cluster: Cluster) -> Iterator[Case]:
    for component, what in ((GATEWAY, "gateway"), (POD, "pods")):
        check = f"{what} Deployment"
        found = [each for each in cluster.of(Kind.DEPLOYMENTS) if each.component == component]
        if not found:
            yield Case(
                check,
                "problem",
                f"none in namespace {cluster.namespace} with the label {MARWAY} and component {component}",
                "is it another --namespace or --context? else kubectl apply -k an overlay of deploy/kubernetes",
            )
        for deployment in found:
            ready, wanted = deployment.at("status.readyReplicas", 0), deployment.at("spec.replicas", 1)
            trouble = _trouble(deployment)
            text = f"{deployment.name}: {ready} of {wanted} ready{trouble}"
            if wanted == 0:
                yield Case(check, "problem", text, f"kubectl scale deployment {deployment.name}")
            elif ready >= wanted and not trouble:
                yield Case(check, "ok", text)
            else:
                advice = "the findings about its pods say why; kubectl rollout status tells when it is done"
                yield Case(check, "warning" if ready else "problem", text, advice)


def _trouble(deployment: Object) -> str:
    for condition in deployment.conditions:
        if (condition.text("type"), condition.text("status") == "True") in (
            ("Progressing", False),
            ("ReplicaFailure", True),
        ):
            return f"; {condition.text('message')}"
    return ""


def _services(cluster: Cluster) -> Iterator[Case]:
    ours = [service for service in cluster.of(Kind.SERVICES) if service.component == POD]
    if not ours and not cluster.unread(Kind.SERVICES):
        found = f"none in namespace {cluster.namespace} with component {POD}"
        yield Case(_SERVICE, "problem", found, "apply the base again: gateways find pods through a headless Service")
    for service in ours:
        if service.text("spec.clusterIP") != "None":
            found = f"{service.name} has a cluster IP, so gateways see one address instead of every pod"
            yield Case(_SERVICE, "problem", found, "make it anew with clusterIP: None")
        else:
            yield from _endpoints(cluster, service)


def _endpoints(cluster: Cluster, service: Object) -> Iterator[Case]:
    addresses: set[str] = set()
    for each in cluster.of(Kind.ENDPOINTS):
        if each.labels.get(_SERVICE_OF) == service.name:
            addresses.update(*(endpoint.at("addresses", []) for endpoint in each.parts("endpoints", Part)))
    selector: dict[str, str] = service.at("spec.selector", {})
    matching = [pod for pod in cluster.pods if selector.items() <= pod.labels.items()]
    if addresses:
        yield Case(_SERVICE, "ok", f"{service.name}: {len(addresses)} addresses")
    elif not cluster.unread(Kind.ENDPOINTS):
        wanted = ", ".join(f"{name}={value}" for name, value in selector.items()) or "(none)"
        why = f"none of {len(matching)} pods has an address yet" if matching else f"no pod is {wanted}"
        advice = "the findings about pods say why" if matching else "let its selector name the pods' labels"
        yield Case(_SERVICE, "problem", f"{service.name} has no endpoint: {why}", advice)


def _versions(cluster: Cluster) -> Iterator[Case]:
    tags: dict[str, set[str]] = {}
    for pod in cluster.pods_of(GATEWAY, POD):
        for container in pod.spec.containers:
            if container.name in _VERSIONED:
                tags.setdefault(container.name, set()).add(_tag(container.text("image")))
    if not tags:
        return
    text = "; ".join(f"{name} {', '.join(sorted(tags[name]))}" for name in _VERSIONED if name in tags)
    if len(set().union(*tags.values())) == 1:
        yield Case("versions", "ok", text)
    else:
        advice = "give all images one tag and let the rollout end: neighbouring versions work together, others may not"
        yield Case("versions", "warning", text, advice)


def _tag(image: str) -> str:
    """Return an image's tag; its digest, shortened, if that is all there is."""
    name, _, digest = image.partition("@")
    tag = name.rpartition("/")[2].partition(":")[2]
    return tag or digest[:19] or "latest"


def _protected(cluster: Cluster, component: str, what: str, why: str) -> Iterator[Case]:
    """Yield that budgets or policies leave out some of a component's pods."""
    budgets = [each.part("spec.selector") for each in cluster.of(Kind.BUDGETS)]  # one without a selector means no pod
    policies = [
        each.part("spec.podSelector")
        for each in cluster.of(Kind.POLICIES)
        if "Ingress" in each.at("spec.policyTypes", ["Ingress"])
    ]
    for kind, selectors, check, found, advice in (
        (
            Kind.BUDGETS,
            [each for each in budgets if each],
            "disruption budget",
            f"none for {what}",
            "apply the base's PodDisruptionBudget: draining nodes may else take all of them at once",
        ),
        (
            Kind.POLICIES,
            policies,
            "network policy",
            f"none restricts who reaches {what}",
            f"apply the base's NetworkPolicies: {why}",
        ),
    ):
        open_ones = (
            pod.name
            for pod in cluster.pods_of(component)
            if not any(selects(selector, pod.labels) for selector in selectors)
        )
        first = None if cluster.unread(kind) else next(open_ones, None)
        if first is not None:
            yield Case(check, "warning", f"{found}, such as {first}", advice)


def _secrets(cluster: Cluster) -> Iterator[Case]:
    if cluster.secrets is None:
        return
    missing = set()
    for deployment in cluster.of(Kind.DEPLOYMENTS):
        spec = PodSpec(deployment.at("spec.template.spec", {}))
        parts: tuple[Container | Volume, ...] = (*spec.containers, *spec.volumes)
        for secret in (secret for part in parts for secret in part.secrets()):
            if secret.name and secret.name not in cluster.secrets and not secret.at("optional", False):
                missing.add((secret.name, deployment.name))
    for name, deployment_name in sorted(missing):
        advice = f"kubectl create secret generic {name} …, as docs say"
        yield Case("secrets", "problem", f"there is no Secret {name}", advice, deployment_name)
