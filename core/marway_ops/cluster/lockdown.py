"""What models' code could get at in the runtime's container, and should not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Final

from marway_ops.cluster.kubectl import Cluster
from marway_ops.cluster.objects import GATEWAY, POD, Container, Mount, Pod
from marway_ops.doctor.findings import Case, Finding, findings_of

__all__ = ["check_lockdown"]

_TOKEN_MOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105  # a path
_CREDENTIAL: Final = re.compile(
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|SESSION_TOKEN|WEB_IDENTITY_TOKEN_FILE|CONTAINER_AUTHORIZATION_TOKEN.*)"
    r"|GOOGLE_APPLICATION_CREDENTIALS|AZURE_FEDERATED_TOKEN_FILE|AZURE_CLIENT_SECRET|.*(PASSWORD|_SECRET|_TOKEN)"
)
"""Variables that hold credentials or say where they are, those that clouds' webhooks add to every container too."""


def check_lockdown(cluster: Cluster) -> Iterator[Finding]:
    """Yield credentials, writable stores and tokens where none should be."""
    pods, gateways = cluster.pods_of(POD), cluster.pods_of(GATEWAY)
    runtimes = [(pod, container) for pod in pods for container in pod.runtimes]
    yield from findings_of("credentials in the runtime", "problem", _credentials(runtimes))
    yield from findings_of("store in the runtime", "problem", _writable_stores(runtimes))
    yield from findings_of("service account token", "problem", _pod_tokens(pods))
    yield from findings_of("service account token", "warning", _gateway_tokens(gateways))
    yield from findings_of("service account token", "problem", _missing_tokens(gateways))


def _credentials(runtimes: list[tuple[Pod, Container]]) -> Iterator[Case]:
    for pod, container in runtimes:
        secret_volumes = {volume.name for volume in pod.spec.volumes if [*volume.secrets()]}
        token_volumes = {volume.name for volume in pod.spec.volumes if volume.has_token}
        found = [f"secret {secret.name} in its environment" for secret in container.secrets()]
        found += [f"variable {each.name}" for each in container.env if _CREDENTIAL.fullmatch(each.name)]
        for mount in container.volume_mounts:
            if mount.name in secret_volumes:
                found.append(f"secret volume {mount.name}")
            elif mount.name in token_volumes and mount.mount_path != _TOKEN_MOUNT:
                found.append(f"token volume {mount.name}")
        if found:
            yield Case(
                pod.name,
                f"container {container.name} has {', '.join(dict.fromkeys(found))}",
                "models' code reads them: give credentials to the sidecar alone; where a webhook adds them to every "
                f"container, have it skip {container.name} (on EKS the annotation eks.amazonaws.com/skip-containers)",
            )


def _writable_stores(runtimes: list[tuple[Pod, Container]]) -> Iterator[Case]:
    for pod, container in runtimes:
        mount = _store(container)
        if mount is not None and not mount.read_only:
            yield Case(
                pod.name,
                f"container {container.name} may write to {mount.mount_path}",
                "add readOnly: true to that mount: a model could else replace the archives of others",
            )


def _store(container: Container) -> Mount | None:
    """Return the mount that holds the archive store, or None where it cannot be told."""
    path = container.flag("--model-store") or container.variable("MARWAY_RUNTIME_MODEL_STORE")
    if path:
        parents = {str(PurePosixPath(path)), *map(str, PurePosixPath(path).parents)}
        found = [mount for mount in container.volume_mounts if str(PurePosixPath(mount.mount_path)) in parents]
        return max(found, key=lambda mount: len(mount.mount_path), default=None)
    return next((mount for mount in container.volume_mounts if mount.name == "store"), None)


def _pod_tokens(pods: tuple[Pod, ...]) -> Iterator[Case]:
    for pod in pods:
        if _has_api_token(pod):
            yield Case(
                pod.name,
                "the API's token of its service account is mounted",
                "set automountServiceAccountToken: false: nothing in a pod asks the Kubernetes API",
            )


def _gateway_tokens(gateways: tuple[Pod, ...]) -> Iterator[Case]:
    for pod in gateways:
        if _has_api_token(pod) and not _asks_the_api(pod):
            yield Case(
                pod.name,
                "the API's token is mounted, and its pods are not found by kubernetes://",
                "set automountServiceAccountToken: false, or name the pods by kubernetes://SERVICE:PORT",
            )


def _missing_tokens(gateways: tuple[Pod, ...]) -> Iterator[Case]:
    for pod in gateways:
        elsewhere = any(each.variable("MARWAY_GATEWAY_KUBERNETES_CREDENTIALS_DIR") for each in pod.spec.containers)
        if _asks_the_api(pod) and not _has_api_token(pod) and not elsewhere:
            yield Case(
                pod.name,
                "its pods are to be found by kubernetes://, and no token for the API is mounted",
                "add the component endpointslices, which mounts one and brings its Role, or use dns://",
            )


def _has_api_token(pod: Pod) -> bool:
    return any(
        mount.mount_path == _TOKEN_MOUNT for container in pod.spec.every_container for mount in container.volume_mounts
    )


def _asks_the_api(pod: Pod) -> bool:
    return any(
        "kubernetes://" in f"{each.variable('MARWAY_GATEWAY_PODS') or ''} {each.flag('--pods') or ''}"
        for each in pod.spec.containers
    )
