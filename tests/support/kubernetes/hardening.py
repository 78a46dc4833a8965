"""Policies for containers and pods: what they may, have and say. Each yields its complaints."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator

from support.kubernetes.objects import (
    MODEL_SERVERS,
    Container,
    containers,
    name_of,
    named_namespace,
    of_kind,
    pod_labels,
    pod_of,
    quantity,
    selects,
    template_of,
    volumes,
    workloads,
)
from support.kubernetes.render import ROOT, Document

_VOLUMES = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
"""What the Pod Security Standard "restricted" allows."""
_RESOURCES = ("cpu", "memory", "ephemeral-storage")


def runs_as_nobody(documents: list[Document]) -> Iterator[str]:
    """No container runs as root, by word and by number; OpenShift's constraint gives the number, and wants none."""
    for each in containers(documents):
        if each.security("runAsNonRoot") is not True:
            yield f"{each}: runAsNonRoot is not said"
        if _constrained(documents, each):
            numbers = [field for field in ("runAsUser", "runAsGroup", "fsGroup") if each.security(field) is not None]
            if numbers:
                yield f"{each}: says {numbers}, which OpenShift refuses"
            continue
        if not each.security("runAsUser"):
            yield f"{each}: runs as root, or as whoever the image says"
        if not each.security("runAsGroup"):
            yield f"{each}: its group is root's, or whatever the image says"


def _constrained(documents: list[Document], each: Container) -> bool:
    """Whether OpenShift's security context constraint `restricted-v2` is asked for."""
    (workload,) = (found for found in workloads(documents) if name_of(found) == each.deployment)
    annotations = template_of(workload)["metadata"].get("annotations", {})
    return bool(annotations.get("openshift.io/required-scc") == "restricted-v2")


def is_locked(documents: list[Document]) -> Iterator[str]:
    """No container can write to its image, gain privileges, or has a capability."""
    for each in containers(documents):
        own = each.spec.get("securityContext", {})
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{each}: its root file system can be written"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{each}: privileges can be gained"
        if own.get("privileged"):
            yield f"{each}: privileged"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{each}: has capabilities"
        if (each.security("seccompProfile") or {}).get("type") != "RuntimeDefault":
            yield f"{each}: no seccomp profile"


def is_apart_from_its_node(documents: list[Document]) -> Iterator[str]:
    """Nothing of the node is shared, and nobody asks for more than the standard "restricted" allows."""
    for deployment in workloads(documents):
        pod, name = pod_of(deployment), name_of(deployment)
        yield from (f"{name}: {flag}" for flag in ("hostNetwork", "hostPID", "hostIPC") if pod.get(flag))
        if pod.get("securityContext", {}).get("sysctls"):
            yield f"{name}: sysctls"
        for volume in pod.get("volumes", []):
            yield from (f"{name}: volume {volume['name']} is {kind}" for kind in volume.keys() - _VOLUMES - {"name"})
    for each in containers(documents):
        if any("hostPort" in port for port in each.spec.get("ports", [])):
            yield f"{each}: hostPort"
    for namespace in of_kind(documents, "Namespace"):
        labels = namespace["metadata"].get("labels", {})
        for mode in ("enforce", "audit", "warn"):
            if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted":
                yield f"namespace {name_of(namespace)}: does not {mode} the standard"


def is_limited(documents: list[Document]) -> Iterator[str]:
    """Each container requests and is limited in CPU, memory and disk; memory is not overcommitted."""
    for each in containers(documents):
        given = each.spec.get("resources", {})
        requests, limits = given.get("requests", {}), given.get("limits", {})
        for name in _RESOURCES:
            if name not in requests or name not in limits:
                yield f"{each}: {name} is not requested and limited"
            elif quantity(requests[name]) > quantity(limits[name]):
                yield f"{each}: requests more {name} than its limit"
        if requests.get("memory") != limits.get("memory"):
            yield f"{each}: its memory is overcommitted"
    for deployment in workloads(documents):
        yield from _disk(deployment, documents)


def _disk(deployment: Document, documents: list[Document]) -> Iterator[str]:
    directories = [each["emptyDir"] for each in volumes(pod_of(deployment)).values() if "emptyDir" in each]
    if any("sizeLimit" not in each for each in directories):
        yield f"{name_of(deployment)}: an emptyDir without sizeLimit"
        return
    mine = [each for each in containers(documents) if each.deployment == name_of(deployment)]
    limits = [each.spec.get("resources", {}).get("limits", {}).get("ephemeral-storage", "0") for each in mine]
    # kubelet evicts a pod whose volumes, logs and layers together exceed the sum of its containers' limits.
    if sum(quantity(each["sizeLimit"]) for each in directories) > sum(map(quantity, limits)):
        yield f"{name_of(deployment)}: its volumes may hold more than its containers may"


def is_probed(documents: list[Document]) -> Iterator[str]:
    """Each container has a liveness probe; a main one also says when it started and when it can serve.

    A sidecar is ready while it can serve. A gateway has started once it can; from then on it takes requests also while
    no pod can answer, to say so: a Service without endpoints would refuse connections.
    """
    paths = {("gateway", "startupProbe"): "/readyz", ("sidecar", "readinessProbe"): "/readyz"}
    for each in containers(documents):
        if each.once:
            continue
        wanted = ["livenessProbe"] if each.starts_first else ["livenessProbe", "readinessProbe", "startupProbe"]
        yield from (f"{each}: no {probe}" for probe in wanted if probe not in each.spec)
        ports = {port["name"] for port in each.spec.get("ports", [])}
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            asked = each.spec.get(probe, {}).get("httpGet")
            if asked is not None and asked["port"] not in ports:
                yield f"{each}: {probe} asks the port {asked['port']}, which it does not have"
            if asked is not None and asked["path"] != paths.get((each.name, probe), "/healthz"):
                yield f"{each}: {probe} asks {asked['path']}"
            # A container of model servers listens on loopback, where kubelet does not get.
            if asked is not None and each.name in MODEL_SERVERS:
                yield f"{each}: {probe} over the network"


def has_no_token(documents: list[Document]) -> Iterator[str]:
    """Nobody gets a token for the API server by default; who needs one mounts it, and no model server does."""
    for account in of_kind(documents, "ServiceAccount"):
        if account.get("automountServiceAccountToken") is not False:
            yield f"service account {name_of(account)}: its token is mounted"
    for deployment in workloads(documents):
        pod = pod_of(deployment)
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name_of(deployment)}: the token is mounted"
        if pod.get("serviceAccountName", "default") == "default":
            yield f"{name_of(deployment)}: runs under the namespace's default account"
        if pod.get("enableServiceLinks") is not False:
            yield f"{name_of(deployment)}: variables of Services, which look like settings"
    bound = {
        subject["name"]
        for each in of_kind(documents, "RoleBinding", "ClusterRoleBinding")
        for subject in each["subjects"]
    }
    for each in containers(documents):
        for volume in each.volumes.values():
            for source in volume.get("projected", {}).get("sources", []):
                audience = source.get("serviceAccountToken", {"audience": "elsewhere"}).get("audience")
                if audience is None and each.pod["serviceAccountName"] not in bound:
                    yield f"{each}: has a token for the API server that is good for nothing"


def keeps_secrets_from_models(documents: list[Document]) -> Iterator[str]:
    """What runs models' code has no credentials: no secret, no token, no variable of AWS."""
    servers = [each for each in containers(documents) if each.name in MODEL_SERVERS]
    if not servers:
        yield "no container of a model server was found"
    for each in servers:
        for name, volume in each.volumes.items():
            if not volume.keys() & {"emptyDir", "configMap", "persistentVolumeClaim", "ephemeral"}:
                yield f"{each}: volume {name} may hold credentials"
        if each.spec.get("envFrom"):
            yield f"{each}: envFrom"
        for variable in each.spec.get("env", []):
            if variable["name"].startswith(("AWS_", "MARWAY_REGISTRY")) or "secretKeyRef" in variable.get(
                "valueFrom", {}
            ):
                yield f"{each}: {variable['name']}"
        # A mount of the volume's root by way of another container's directory would do as well.
        for mount in each.mounts.values():
            if "secret" in mount["mountPath"]:
                yield f"{each}: {mount['mountPath']}"


def has_pinned_images(documents: list[Document]) -> Iterator[str]:
    """Each image has a tag that means something, or a digest; ours have the version of this tree."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for each in containers(documents):
        image, _, digest = each.spec["image"].partition("@")
        tag = image.rpartition("/")[2].partition(":")[2]
        if not digest and not re.fullmatch(r"v?[0-9]+\.[0-9]+.*", tag):
            yield f"{each}: {image} is not pinned"
        if image.startswith("marway-") and tag not in (version, f"{version}-gpu"):
            yield f"{each}: {image} is not version {version}"


def survives_nodes(documents: list[Document]) -> Iterator[str]:
    """Each Deployment has one disruption budget that lets a node drain, and spreads over nodes and zones."""
    for deployment in of_kind(documents, "Deployment"):
        name, labels = name_of(deployment), pod_labels(deployment)
        budgets = [
            each for each in of_kind(documents, "PodDisruptionBudget") if selects(each["spec"]["selector"], labels)
        ]
        if len(budgets) != 1:
            yield f"{name}: {len(budgets)} disruption budgets"
        yield from (
            f"{name_of(each)}: no node can drain" for each in budgets if each["spec"].get("maxUnavailable") != 1
        )
        spread = pod_of(deployment).get("topologySpreadConstraints", [])
        keys = {each["topologyKey"] for each in spread if selects(each.get("labelSelector"), labels)}
        if keys != {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}:
            yield f"{name}: spreads over {sorted(keys)}"


def rolls_without_a_gap(documents: list[Document]) -> Iterator[str]:
    """A rollout takes no pod away before its successor has had time to be found and to load."""
    for deployment in of_kind(documents, "Deployment"):
        strategy = deployment["spec"].get("strategy", {})
        if strategy.get("rollingUpdate") != {"maxUnavailable": 0, "maxSurge": 1}:
            yield f"{name_of(deployment)}: {strategy.get('rollingUpdate')}"
        if deployment["spec"].get("minReadySeconds", 0) < 5:
            yield f"{name_of(deployment)}: the next pod goes as soon as this one is ready"


def is_in_one_namespace(documents: list[Document]) -> Iterator[str]:
    """Everything is in the namespace that comes with it."""
    namespace = named_namespace(documents)
    for each in documents:
        if each["kind"] != "Namespace" and each["metadata"].get("namespace") != namespace:
            yield f"{each['kind']} {name_of(each)}: in {each['metadata'].get('namespace')}"
