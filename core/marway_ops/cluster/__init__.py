"""All checks of a cluster, through kubectl, and what a gateway says of its pods; nothing is changed in the cluster."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

from marway.admin_client import AdminClient
from marway.errors import MarwayError
from marway_ops.cluster.kubectl import NAMESPACE, Cluster, Kubectl
from marway_ops.cluster.objects import POD
from marway_ops.cluster.pods import check_containers, check_lockdown
from marway_ops.cluster.wiring import check_wiring
from marway_ops.shell.output import Case, Finding, findings_of

__all__ = ["NAMESPACE", "Kubectl", "examine_cluster"]

_GATEWAY: Final = "pods of the gateway"


def examine_cluster(kubectl: Kubectl, *, admin: AdminClient | None = None) -> list[Finding]:
    """Run every check and return what they found; with ``admin`` a gateway is asked for its pods, too.

    Raises:
        InvalidSettings: There is no kubectl.
        Unavailable: The cluster cannot be read.
    """
    cluster = kubectl.read()
    cases = [*_unread(cluster), *check_wiring(cluster), *check_containers(cluster), *check_lockdown(cluster)]
    if admin is not None:
        cases += _of_gateway(admin, cluster)
    return findings_of(cases)


def _unread(cluster: Cluster) -> Iterator[Case]:
    unread = [kind.value for kind in cluster.found if cluster.unread(kind)]
    if cluster.secrets is None:
        unread.append("secrets")
    if unread:
        yield Case(
            "rights",
            "warning",
            f"you may not list {', '.join(sorted(unread))} in namespace {cluster.namespace}",
            "what depends on them was not checked: ask for the rights to list them, or let somebody else look",
        )


def _of_gateway(admin: AdminClient, cluster: Cluster) -> Iterator[Case]:
    """Yield what the gateway knows, and what it does not know, of the pods that there are."""
    try:
        shown: list[dict[str, Any]] = admin.call("GET", "/pods")
    except MarwayError as exc:
        yield Case(_GATEWAY, "problem", exc.message, "kubectl port-forward service/… 8001 reaches it")
        return
    if not shown:
        advice = "see MARWAY_GATEWAY_PODS, and the gateway's log for what its discovery says"
        yield Case(_GATEWAY, "problem", "it knows none", advice)
        return
    well = True
    for pod in shown:
        if not pod["eligible"] and not pod["trouble"].startswith(("is draining", "is being terminated")):
            well = False
            advice = "kubectl logs of that pod, and NetworkPolicies if it cannot be reached"
            yield Case(_GATEWAY, "problem", str(pod["trouble"]), advice, str(pod["name"]))
    known = {str(pod["name"]) for pod in shown} | {urlsplit(str(pod["url"])).hostname for pod in shown}
    for there in cluster.pods_of(POD):
        if there.ready and not known & {there.name, there.text("status.podIP")}:
            well = False
            advice = "new ones are found within seconds; else see its log"
            yield Case(_GATEWAY, "warning", "ready, and unknown to the gateway", advice, there.name)
    if well:
        yield Case(_GATEWAY, "ok", f"{len(shown)}, all of them take requests")
