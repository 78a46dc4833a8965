"""Policies for what objects say of one another: references, selectors, ports, scaling."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry

from marway_gateway.observe.metrics import Metrics as GatewayMetrics
from marway_sidecar.metrics import SidecarMetrics
from support.kubernetes.objects import (
    containers,
    name_of,
    named_namespace,
    of_kind,
    pod_labels,
    pod_of,
    selects,
    workloads,
)
from support.kubernetes.render import ROOT, Document

_MADE_BY_THE_CLUSTER = {("ConfigMap", "kube-root-ca.crt")}


def refers_to_what_is_there(documents: list[Document]) -> Iterator[str]:
    """What is referred to is among the manifests, or the documents say how it is made."""
    there = {(each["kind"], name_of(each)): each for each in documents}
    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for who, kind, name, key in _references(documents):
        if (kind, name) in _MADE_BY_THE_CLUSTER:
            continue
        if kind == "Secret":
            if not re.search(rf"create secret (generic|tls) {re.escape(name)}\b", page):
                yield f"{who}: docs/kubernetes.md does not say how the Secret {name} is made"
        elif (kind, name) not in there:
            yield f"{who}: there is no {kind} {name}"
        elif key is not None and key not in there[kind, name].get("data", {}):
            yield f"{who}: the {kind} {name} has no {key}"


def _references(documents: list[Document]) -> Iterator[tuple[str, str, str, str | None]]:
    for each in containers(documents):
        for source in each.spec.get("envFrom", []):
            (kind, reference), *_ = ((kind, value) for kind, value in source.items() if kind.endswith("Ref"))
            yield str(each), {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind], reference["name"], None
        for variable in each.spec.get("env", []):
            for kind, of in (("configMapKeyRef", "ConfigMap"), ("secretKeyRef", "Secret")):
                if reference := variable.get("valueFrom", {}).get(kind):
                    yield str(each), of, reference["name"], reference["key"]
    for deployment in workloads(documents):
        pod, who = pod_of(deployment), name_of(deployment)
        yield who, "ServiceAccount", pod["serviceAccountName"], None
        for volume in pod.get("volumes", []):
            for part in (volume, *volume.get("projected", {}).get("sources", [])):
                if "secret" in part:
                    yield who, "Secret", part["secret"].get("secretName") or part["secret"]["name"], None
                if "configMap" in part:
                    yield who, "ConfigMap", part["configMap"]["name"], None
                if "persistentVolumeClaim" in part:
                    yield who, "PersistentVolumeClaim", part["persistentVolumeClaim"]["claimName"], None
    for each in of_kind(documents, "Ingress"):
        yield from ((name_of(each), "Secret", tls["secretName"], None) for tls in each["spec"]["tls"])
    for each in of_kind(documents, "Gateway"):
        for listener in each["spec"]["listeners"]:
            for reference in listener.get("tls", {}).get("certificateRefs", [{"name": "nothing"}]):
                yield name_of(each), "Secret", reference["name"], None
    for each in of_kind(documents, "RoleBinding"):
        yield name_of(each), each["roleRef"]["kind"], each["roleRef"]["name"], None
        yield from ((name_of(each), subject["kind"], subject["name"], None) for subject in each["subjects"])


def selects_what_it_means(documents: list[Document]) -> Iterator[str]:
    """Selectors match pods that there are, and a Deployment's its own and nobody else's."""
    deployments = of_kind(documents, "Deployment")
    for each in deployments:
        matched = [name_of(other) for other in deployments if selects(each["spec"]["selector"], pod_labels(other))]
        if matched != [name_of(each)]:
            yield f"{name_of(each)}: its selector matches {matched}"
    for each in of_kind(documents, "Service"):
        behind = {pod_labels(found)["app.kubernetes.io/component"] for found in _behind(documents, each)}
        if len(behind) != 1:
            yield f"Service {name_of(each)}: stands for {sorted(behind)}"
    for each in of_kind(documents, "PodDisruptionBudget"):
        if len([other for other in deployments if selects(each["spec"]["selector"], pod_labels(other))]) != 1:
            yield f"PodDisruptionBudget {name_of(each)}: is not for one Deployment"
    for each in of_kind(documents, "NetworkPolicy"):
        if not any(selects(each["spec"]["podSelector"], pod_labels(other)) for other in workloads(documents)):
            yield f"NetworkPolicy {name_of(each)}: is for nobody"


def _behind(documents: list[Document], service: Document) -> list[Document]:
    selector = {"matchLabels": service["spec"]["selector"]}
    return [each for each in of_kind(documents, "Deployment") if selects(selector, pod_labels(each))]


def _ports(deployment: Document) -> dict[str, int]:
    pod = pod_of(deployment)
    every = [port for each in pod["containers"] + pod.get("initContainers", []) for port in each.get("ports", [])]
    return {port["name"]: port["containerPort"] for port in every}


def leads_to_ports(documents: list[Document]) -> Iterator[str]:
    """Services lead to ports that containers have, and doors to ports that Services have, never to the admin port."""
    for service in of_kind(documents, "Service"):
        for deployment in _behind(documents, service):
            ports = _ports(deployment)
            for port in service["spec"]["ports"]:
                if ports.get(port["targetPort"]) != port["port"]:
                    yield f"Service {name_of(service)}: {port['port']} leads to {port['targetPort']}, of {ports}"
    for monitor in of_kind(documents, "PodMonitor"):
        selector = monitor["spec"]["selector"]
        watched = [each for each in of_kind(documents, "Deployment") if selects(selector, pod_labels(each))]
        sought = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
        if not watched or any(sought - _ports(each).keys() for each in watched):
            yield f"PodMonitor {name_of(monitor)}: {sorted(sought)} of {[name_of(each) for each in watched]}"
    gateways = {
        name_of(each): {listener["name"] for listener in each["spec"]["listeners"]}
        for each in of_kind(documents, "Gateway")
    }
    hosts: list[str] = []
    for each in of_kind(documents, "HTTPRoute", "GRPCRoute"):
        hosts += each["spec"]["hostnames"]
        for parent in each["spec"]["parentRefs"]:
            if parent["sectionName"] not in gateways.get(parent["name"], ()):
                yield f"{each['kind']} {name_of(each)}: there is no {parent}"
    if len(hosts) != len(set(hosts)):
        yield f"routes share a host name, and a listener takes only one of them: {hosts}"
    for who, name, wanted in _backends(documents):
        service = next((each for each in of_kind(documents, "Service") if name_of(each) == name), None)
        ports = service["spec"]["ports"] if service else []
        found = [port for port in ports if wanted in (port["name"], port["port"])]
        if len(found) != 1 or found[0]["name"] == "admin":
            yield f"{who}: leads to {name}:{wanted}"


def _backends(documents: list[Document]) -> Iterator[tuple[str, str, Any]]:
    for each in of_kind(documents, "Ingress"):
        for rule in each["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                service = path["backend"]["service"]
                yield (
                    f"Ingress {name_of(each)}",
                    service["name"],
                    service["port"].get("name") or service["port"]["number"],
                )
    for each in of_kind(documents, "HTTPRoute", "GRPCRoute"):
        for rule in each["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                yield f"{each['kind']} {name_of(each)}", backend["name"], backend["port"]
    for each in of_kind(documents, "Route"):
        yield f"Route {name_of(each)}", each["spec"]["to"]["name"], each["spec"]["port"]["targetPort"]


def is_there_while_nothing_is_ready(documents: list[Document]) -> Iterator[str]:
    """Gateways judge pods themselves, and admins come when nothing is ready; callers never meet a gateway that ends.

    The endpoints of a Service with `publishNotReadyAddresses` count as ready until they are gone, also those that end
    and take no connections any more.
    """
    for each in of_kind(documents, "Service"):
        published = bool(each["spec"].get("publishNotReadyAddresses"))
        if published == (name_of(each) == "marway-gateway"):
            yield f"Service {name_of(each)}: publishNotReadyAddresses is {published}"


def is_encrypted_outside(documents: list[Document]) -> Iterator[str]:
    """Doors to the outside speak TLS for every host that they serve."""
    for each in of_kind(documents, "Ingress"):
        covered = {host for tls in each["spec"].get("tls", []) for host in tls["hosts"]}
        yield from (
            f"Ingress {name_of(each)}: {rule['host']} without TLS"
            for rule in each["spec"]["rules"]
            if rule["host"] not in covered
        )
    for each in of_kind(documents, "Gateway"):
        for listener in each["spec"]["listeners"]:
            if listener["protocol"] != "HTTPS" or not listener.get("tls", {}).get("certificateRefs"):
                yield f"Gateway {name_of(each)}: {listener['name']} without TLS"
    for each in of_kind(documents, "Route"):
        tls = each["spec"].get("tls", {})
        if not tls.get("termination") or tls.get("insecureEdgeTerminationPolicy") not in ("None", "Redirect"):
            yield f"Route {name_of(each)}: without TLS"


def scales_gently(documents: list[Document]) -> Iterator[str]:
    """A Deployment has its replicas from one place; scaling in takes one pod at a time, with the time to drain."""
    deployments = {name_of(each): each for each in of_kind(documents, "Deployment")}
    scalers: dict[str, list[str]] = {name: [] for name in deployments}
    for each in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        spec, who = each["spec"], f"{each['kind']} {name_of(each)}"
        target = deployments.get(spec["scaleTargetRef"]["name"])
        if target is None or spec["scaleTargetRef"].get("kind") != "Deployment":
            yield f"{who}: scales nothing"
            continue
        scalers[name_of(target)].append(who)
        behavior = spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        grace_s = pod_of(target)["terminationGracePeriodSeconds"]
        for policy in behavior["scaleDown"]["policies"]:
            if (policy["type"], policy["value"]) != ("Pods", 1) or policy["periodSeconds"] < grace_s:
                yield f"{who}: {policy} takes the next while one still drains, {grace_s} s"
        if (spec.get("minReplicas") or spec.get("minReplicaCount", 0)) < 2:
            yield f"{who}: a single one is no service"
    for name, found in scalers.items():
        if len(found) > 1:
            yield f"{name}: is scaled by {found}"
        if bool(found) == ("replicas" in deployments[name]["spec"]):
            yield f"{name}: replicas are said by nobody, or by {found} and the manifest"


def asks_for_metrics_that_exist(documents: list[Document]) -> Iterator[str]:
    """A scaler's queries name only metrics that the programs have, of this namespace."""
    known = set(_names(GatewayMetrics().registry)) | set(_names(SidecarMetrics().registry))
    for each in of_kind(documents, "ScaledObject"):
        triggers = [trigger for trigger in each["spec"]["triggers"] if trigger["type"] == "prometheus"]
        for trigger in triggers:
            query = trigger["metadata"]["query"]
            used = re.findall(r"marway_[a-z_]+", query)
            if not used or set(used) - known:
                yield f"{name_of(each)}: {query} asks for {sorted(set(used) - known)}"
            if query.count(f'namespace="{named_namespace(documents)}"') != len(used):
                yield f"{name_of(each)}: {query} counts other namespaces' pods"
            float(trigger["metadata"]["threshold"])


def _names(registry: CollectorRegistry) -> Iterator[str]:
    for family in registry.collect():
        if family.type == "histogram":
            yield from (f"{family.name}_{suffix}" for suffix in ("bucket", "count", "sum"))
        yield f"{family.name}_total" if family.type == "counter" else family.name
