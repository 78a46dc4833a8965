"""All checks of a cluster, and what a gateway says of its pods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from marway.admin_client import AdminClient
from marway.errors import MarwayError
from marway_ops.cluster.containers import check_containers
from marway_ops.cluster.kubectl import Cluster, Kubectl
from marway_ops.cluster.lockdown import check_lockdown
from marway_ops.cluster.objects import POD
from marway_ops.cluster.wiring import check_wiring
from marway_ops.doctor.findings import Case, Finding, findings_of

__all__ = ["examine_cluster"]


def examine_cluster(kubectl: Kubectl, *, admin: AdminClient | None = None) -> list[Finding]:
    """Run every check and return what they found.

    Args:
        kubectl: How to read the cluster.
        admin: A gateway to ask for its pods, or None.

    Raises:
        InvalidSettings: There is no kubectl.
        Unavailable: The cluster cannot be read.
    """
    cluster = kubectl.read()
    findings = [*_unread(cluster), *check_wiring(cluster), *check_containers(cluster), *check_lockdown(cluster)]
    if admin is not None:
        findings += _of_gateway(admin, cluster)
    return findings


def _unread(cluster: Cluster) -> Iterator[Finding]:
    unread = sorted([*cluster.unread, *(["secrets"] if cluster.secrets is None else [])])
    if unread:
        yield Finding(
            "rights",
            "warning",
            f"you may not list {', '.join(unread)} in namespace {cluster.namespace}",
            "what depends on them was not checked: ask for the rights to list them, or let somebody else look",
        )


def _of_gateway(admin: AdminClient, cluster: Cluster) -> list[Finding]:
    """Return what the gateway knows, and what it does not know, of the pods that there are."""
    try:
        shown: list[dict[str, Any]] = admin.call("GET", "/pods")
    except MarwayError as exc:
        return [
            Finding("pods of the gateway", "problem", exc.message, "kubectl port-forward service/… 8001 reaches it")
        ]
    if not shown:
        return [
            Finding(
                "pods of the gateway",
                "problem",
                "it knows none",
                "see MARWAY_GATEWAY_PODS, and the gateway's log for what its discovery says",
            )
        ]
    findings = findings_of(
        "pods of the gateway",
        "problem",
        (
            Case(
                str(pod["name"]),
                str(pod["trouble"]),
                "kubectl logs of that pod, and NetworkPolicies if it cannot be reached",
            )
            for pod in shown
            if not pod["eligible"] and not pod["trouble"].startswith(("is draining", "is being terminated"))
        ),
    )
    known = {str(pod["name"]) for pod in shown} | {urlsplit(str(pod["url"])).hostname for pod in shown}
    findings += findings_of(
        "pods of the gateway",
        "warning",
        (
            Case(pod.name, "ready, and unknown to the gateway", "new ones are found within seconds; else see its log")
            for pod in cluster.pods_of(POD)
            if pod.ready and not known & {pod.name, pod.ip}
        ),
    )
    if not findings:
        findings.append(Finding("pods of the gateway", "ok", f"{len(shown)}, all of them take requests"))
    return findings
