"""Who may speak with whom, worked out from the NetworkPolicies as the API defines them."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from support.kubernetes.components import settings_of
from support.kubernetes.objects import name_of, named_namespace, of_kind, pod_labels, pod_of, selects
from support.kubernetes.render import Document


@dataclass(frozen=True)
class Peer:
    """One end of a connection: a pod of a namespace, or an address outside."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    namespace: str = ""
    address: str | None = None
    ports: dict[str, int] = field(default_factory=dict)


def allows(documents: list[Document], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether a connection gets through: out of its source, and into its target."""
    return _way(documents, source, target, target, port, protocol, "Egress") and _way(
        documents, target, source, target, port, protocol, "Ingress"
    )


def _way(
    documents: list[Document], whose: Peer, other: Peer, target: Peer, port: int, protocol: str, kind: str
) -> bool:
    if whose.namespace != named_namespace(documents):
        return True  # other namespaces' policies are not ours to know
    policies = [
        each["spec"]
        for each in of_kind(documents, "NetworkPolicy")
        if kind in each["spec"]["policyTypes"] and selects(each["spec"]["podSelector"], whose.labels)
    ]
    if not policies:
        return True
    side, rules = ("to", "egress") if kind == "Egress" else ("from", "ingress")
    return any(
        _is_peer(rule.get(side), other, whose.namespace) and _is_port(rule.get("ports"), target, port, protocol)
        for policy in policies
        for rule in policy.get(rules, [])
    )


def _is_peer(peers: list[dict[str, Any]] | None, other: Peer, namespace: str) -> bool:
    if not peers:
        return True
    for peer in peers:
        if "ipBlock" in peer:
            if other.address is not None and _is_in(peer["ipBlock"], other.address):
                return True
            continue
        if other.address is not None:
            continue
        where = peer.get("namespaceSelector")
        known = {"kubernetes.io/metadata.name": other.namespace}
        near = other.namespace == namespace if where is None else selects(where, known)
        if near and selects(peer.get("podSelector", {}), other.labels):
            return True
    return False


def _is_in(block: dict[str, Any], address: str) -> bool:
    one = ipaddress.ip_address(address)
    networks = [ipaddress.ip_network(each) for each in [block["cidr"], *block.get("except", [])]]
    return one in networks[0] and not any(one in each for each in networks[1:])


def _is_port(ports: list[dict[str, Any]] | None, target: Peer, port: int, protocol: str) -> bool:
    if not ports:
        return True
    return any(
        each.get("protocol", "TCP") == protocol and target.ports.get(each["port"], each["port"]) == port
        if "port" in each
        else each.get("protocol", "TCP") == protocol
        for each in ports
    )


def is_closed_but_for(documents: list[Document]) -> Iterator[str]:
    """Only gateways reach sidecars, and admins the admin port; out go only look-ups and what the registry takes."""
    gateway, pod = _deployed(documents, "gateway"), _deployed(documents, "pod")
    ours = gateway.namespace
    stranger, foreigner = Peer("a stranger", {}, ours), Peer("a pod elsewhere", {}, "default")
    admin = Peer(
        "an admin's pod", {"app.kubernetes.io/name": "marway", "app.kubernetes.io/component": "admin"}, "default"
    )
    names = Peer("DNS", {"k8s-app": "kube-dns"}, "kube-system")
    database = Peer("a database", {"app": "postgres"}, ours)
    cases = [
        (gateway, pod, 9000, True),
        *((who, pod, 9000, False) for who in (stranger, foreigner, pod, admin)),
        *((gateway, pod, port, False) for port in (7070, 7071, 8080, 8081, 8082)),
        *((foreigner, gateway, port, True) for port in (8000, 8002)),
        (stranger, gateway, 8000, False),  # nobody of this namespace gets out
        *((who, gateway, 8001, False) for who in (stranger, foreigner, pod)),
        (admin, gateway, 8001, True),
        *((who, database, 5432, False) for who in (gateway, pod, stranger)),
    ]
    for source, target, port, wanted in cases:
        if allows(documents, source, target, port) != wanted:
            yield f"{source.name} → {target.name}:{port} is {'closed' if wanted else 'open'}"
    for port in (7070, 8080, 8081):  # whatever a gateway's own policy says
        if _way(documents, pod, gateway, pod, port, "TCP", "Ingress"):
            yield f"{pod.name}: {port} is open to gateways"
    for who in (gateway, pod):
        if not (allows(documents, who, names, 53, "UDP") and allows(documents, who, names, 53)):
            yield f"{who.name}: cannot look names up"
        metadata = Peer("the node's metadata service", address="169.254.169.254")
        if any(allows(documents, who, metadata, port) for port in (80, 443)):
            yield f"{who.name}: reaches the node's metadata service"
        if allows(documents, who, Peer("the outside", address="93.184.216.34"), 80):
            yield f"{who.name}: reaches the outside"


def opens_the_way_to_the_registry(documents: list[Document]) -> Iterator[str]:
    """A registry in S3 can be reached by gateways and pods, and with one in a directory nobody gets outside."""
    remote = urlsplit(settings_of(documents, "gateway").registry).scheme == "s3"
    store = Peer("S3", address="52.219.1.1")
    jobs = [
        Peer(name_of(each), pod_labels(each), each["metadata"]["namespace"]) for each in of_kind(documents, "CronJob")
    ]
    for who in (_deployed(documents, "gateway"), _deployed(documents, "pod"), *jobs):
        if allows(documents, who, store, 443) != remote and not _reads_the_api(documents, who):
            yield f"{who.name}: the way to the registry is {'closed' if remote else 'open, and none is there'}"


def _deployed(documents: list[Document], component: str) -> Peer:
    for each in of_kind(documents, "Deployment"):
        if pod_labels(each).get("app.kubernetes.io/component") == component:
            ports = {
                port["name"]: port["containerPort"] for of in pod_of(each)["containers"] for port in of.get("ports", [])
            }
            return Peer(name_of(each), pod_labels(each), each["metadata"]["namespace"], ports=ports)
    raise LookupError(component)


def _reads_the_api(documents: list[Document], who: Peer) -> bool:
    """Whether it watches EndpointSlices: the API server's address is the cluster's to know, so that way is wide."""
    return any(each["kind"] == "RoleBinding" for each in documents) and "gateway" in who.name
