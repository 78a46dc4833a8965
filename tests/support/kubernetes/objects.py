"""What policies ask of rendered manifests: which objects there are, and their parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from support.kubernetes.render import Document

_UNITS = {
    "": 1,
    "m": Decimal("0.001"),
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
OPEN_INFERENCE_SERVERS = ("mlserver", "triton")
"""Containers of servers that read a model repository, which the sidecar writes."""
MODEL_SERVERS = ("runtime", "torchserve", *OPEN_INFERENCE_SERVERS)
"""Containers that run models' code."""


@dataclass(frozen=True)
class Container:
    """One container of a Deployment or a CronJob, whichever list it stands in.

    Attributes:
        deployment: The name of its Deployment or CronJob.
        starts_first: Whether it is a native sidecar container; otherwise it is a main container, or `once` says more.
        once: Whether it ends by itself: before the others begin, or as a job.
        spec: Itself.
        pod: The pod's spec.
    """

    deployment: str
    starts_first: bool
    once: bool
    spec: dict[str, Any]
    pod: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def mounts(self) -> dict[str, dict[str, Any]]:
        """Mounts by the name of their volume."""
        return {mount["name"]: mount for mount in self.spec.get("volumeMounts", [])}

    @property
    def volumes(self) -> dict[str, dict[str, Any]]:
        """The volumes that it mounts, by name."""
        return {name: volume for name, volume in volumes(self.pod).items() if name in self.mounts}

    def security(self, field: str) -> Any:
        """Return what holds for it of what both a pod and a container may say."""
        own = self.spec.get("securityContext", {})
        return own[field] if field in own else self.pod.get("securityContext", {}).get(field)

    def __str__(self) -> str:
        return f"{self.deployment}/{self.name}"


def of_kind(documents: list[Document], *kinds: str) -> list[Document]:
    return [document for document in documents if document["kind"] in kinds]


def name_of(document: Document) -> str:
    return str(document["metadata"]["name"])


def named(documents: list[Document], kind: str, name: str) -> Document:
    (found,) = (each for each in of_kind(documents, kind) if name_of(each) == name)
    return found


def workloads(documents: list[Document]) -> list[Document]:
    """Return everything that makes pods."""
    return of_kind(documents, "Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob")


def template_of(workload: Document) -> dict[str, Any]:
    """Return what a workload's pods are made from."""
    spec = workload["spec"]
    if workload["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    template: dict[str, Any] = spec["template"]
    return template


def pod_of(workload: Document) -> dict[str, Any]:
    spec: dict[str, Any] = template_of(workload)["spec"]
    return spec


def pod_labels(workload: Document) -> dict[str, str]:
    labels: dict[str, str] = template_of(workload)["metadata"]["labels"]
    return labels


def volumes(pod: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {volume["name"]: volume for volume in pod.get("volumes", [])}


def containers(documents: list[Document]) -> Iterator[Container]:
    """Yield every container of everything that makes pods, init containers too."""
    for deployment in workloads(documents):
        pod = pod_of(deployment)
        for spec in pod.get("initContainers", []):
            always = spec.get("restartPolicy") == "Always"
            yield Container(name_of(deployment), always, not always, spec, pod)
        for spec in pod["containers"]:
            yield Container(name_of(deployment), False, deployment["kind"] in ("Job", "CronJob"), spec, pod)


def pools(documents: list[Document]) -> list[list[Document]]:
    """Return an installation as each pool of its pods sees it: everything but the other pools' Deployments."""
    of_pods = [
        each for each in of_kind(documents, "Deployment") if pod_labels(each)["app.kubernetes.io/component"] == "pod"
    ]
    return [[each for each in documents if each is one or each not in of_pods] for one in of_pods]


def container(documents: list[Document], name: str) -> Container:
    (found,) = (each for each in containers(documents) if each.name == name)
    return found


def environment(documents: list[Document], of: Container) -> dict[str, str]:
    """Return the variables that a container gets whose values stand in the manifests, those of ConfigMaps included."""
    found: dict[str, str] = {}
    for source in of.spec.get("envFrom", []):
        if "configMapRef" in source:
            for each in of_kind(documents, "ConfigMap"):
                if name_of(each) == source["configMapRef"]["name"]:
                    found.update(each.get("data", {}))
    for variable in of.spec.get("env", []):
        field = variable.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath")
        if "value" in variable:
            value = str(variable["value"])
            for name, known in found.items():  # kubelet expands what was defined before
                value = value.replace(f"$({name})", known)
            found[variable["name"]] = value
        elif field == "metadata.namespace":
            found[variable["name"]] = named_namespace(documents)
    return found


def named_namespace(documents: list[Document]) -> str:
    (namespace,) = of_kind(documents, "Namespace")
    return name_of(namespace)


def selects(selector: dict[str, Any] | None, labels: dict[str, str]) -> bool:
    """Whether a label selector matches; an empty one matches everything, none nothing."""
    if selector is None:
        return False
    if not all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items()):
        return False
    for rule in selector.get("matchExpressions", []):
        value = labels.get(rule["key"])
        holds = {
            "In": value in rule.get("values", []),
            "NotIn": value not in rule.get("values", []),
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }
        if not holds[rule["operator"]]:
            return False
    return True


def quantity(text: object) -> Decimal:
    """Return a Kubernetes quantity as a number.

    Raises:
        ValueError: It is none.
    """
    words = str(text)
    number = words.rstrip("mkMGTKi")
    unit = words[len(number) :]
    if unit not in _UNITS or not number.replace(".", "", 1).isdigit():
        raise ValueError(f"{words!r} is no quantity")
    return Decimal(number) * _UNITS[unit]
