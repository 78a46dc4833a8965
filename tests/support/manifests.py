"""The manifests of deploy/kubernetes/base as engines that are no Kubernetes take them.

Each change to a manifest is a function here that says why that engine needs it; there are no others.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.kubernetes.render import KUBERNETES, documents, render

__all__ = [
    "Manifest",
    "containers_of",
    "deployment",
    "not_restarted",
    "on_the_namespace",
    "plain_environment",
    "runtime_beside_sidecar",
    "secrets_as_directories",
    "volumes_of_its_own",
    "with_images",
]

Manifest = dict[str, Any]
"""A Deployment, as parsed from YAML."""

NAMESPACE = "marway"


def deployment(component: str, *, name: str) -> Manifest:
    """Return a Deployment of the base, as kustomize renders it, under a name of its own and with one pod.

    `play kube` makes one pod of each.
    """
    rendered = documents(render(KUBERNETES / "base"))
    found: Manifest = next(
        each
        for each in rendered
        if each["kind"] == "Deployment" and each["metadata"]["labels"]["app.kubernetes.io/component"] == component
    )
    found["metadata"]["name"] = name
    found["spec"]["replicas"] = 1
    return found


def with_images(manifest: Manifest, tag: str) -> None:
    """Name the images that were built here, as an overlay's `images:` does for a cluster."""
    for container in containers_of(manifest):
        container["image"] = f"localhost/{container['image'].partition(':')[0]}:{tag}"


def runtime_beside_sidecar(manifest: Manifest) -> None:
    """Make native sidecar containers plain ones: Podman 4 waits until an init container has ended."""
    spec = _spec(manifest)
    native = spec.pop("initContainers", [])
    for container in native:
        assert container.pop("restartPolicy") == "Always", "only native sidecars are among the init containers"
    spec["containers"] = [*native, *spec["containers"]]


def not_restarted(manifest: Manifest) -> None:
    """Leave ended containers as they are: kubelet does so in a pod that is deleted, Podman would start them again."""
    _spec(manifest)["restartPolicy"] = "Never"


def on_the_namespace(manifest: Manifest) -> None:
    """Use the network that Podman was started in, which is a namespace of the test: it cannot be named to a pod.

    Podman refuses ports beside that, and there they say nothing: it is what `hostNetwork` is for it.
    """
    _spec(manifest)["hostNetwork"] = True
    for container in containers_of(manifest):
        container.pop("ports", None)


def volumes_of_its_own(manifest: Manifest) -> None:
    """Put the pod's name before those of its emptyDirs: in Podman 4 those of one name are one volume, for all pods."""
    prefix = manifest["metadata"]["name"]
    for volume in _spec(manifest).get("volumes", []):
        volume["name"] = f"{prefix}-{volume['name']}"
    for container in containers_of(manifest):
        for mount in container.get("volumeMounts", []):
            mount["name"] = f"{prefix}-{mount['name']}"


def secrets_as_directories(manifest: Manifest, directories: Mapping[str, Path]) -> None:
    """Mount directories where Secrets are mounted: Podman 4.3 crashes on a Secret's volume."""
    for volume in _spec(manifest).get("volumes", []):
        if secret := volume.pop("secret", None):
            volume["hostPath"] = {"path": str(directories[secret["secretName"]]), "type": "Directory"}


def plain_environment(manifest: Manifest, config_maps: Mapping[str, Mapping[str, str]]) -> None:
    """Say each container's environment outright, as kubelet would find it: Podman 4 does not expand `$(NAME)`."""
    fields = {"metadata.namespace": NAMESPACE, "metadata.name": manifest["metadata"]["name"]}
    for container in containers_of(manifest):
        found: dict[str, str] = {}
        for source in container.pop("envFrom", []):
            rendered = source["configMapRef"]["name"]  # its name and a hash of its content
            found |= config_maps[rendered.rpartition("-")[0]]
        for variable in container.get("env", []):
            value = variable.get("value")
            if value is None:
                value = fields[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            for name, known in found.items():
                value = value.replace(f"$({name})", known)
            found[variable["name"]] = value
        container["env"] = [{"name": name, "value": value} for name, value in found.items()]


def containers_of(manifest: Manifest) -> list[dict[str, Any]]:
    """Return all containers, init containers first."""
    spec = _spec(manifest)
    return [*spec.get("initContainers", []), *spec["containers"]]


def _spec(manifest: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found
