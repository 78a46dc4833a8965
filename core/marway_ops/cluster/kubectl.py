"""Reads a cluster through kubectl, with its user's rights. Nothing is written, and no secret's value is read."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, TypeVar

from pydantic import ValidationError

from marway.errors import InvalidSettings, Unavailable, clip
from marway_ops.cluster.objects import (
    MARWAY,
    Autoscaler,
    Deployment,
    DisruptionBudget,
    EndpointSlice,
    Event,
    NetworkPolicy,
    Object,
    Pod,
    Service,
)

__all__ = ["NAMESPACE", "Cluster", "Kubectl"]

NAMESPACE: Final = "marway"
"""The namespace of the shipped manifests."""
_CALL_S: Final = 60.0
_FORBIDDEN: Final = "(Forbidden)"
_UNKNOWN_KIND: Final = "the server doesn't have a resource type"

_KINDS: Final[Mapping[str, type[Object]]] = {
    "deployments.apps": Deployment,
    "pods": Pod,
    "services": Service,
    "endpointslices.discovery.k8s.io": EndpointSlice,
    "networkpolicies.networking.k8s.io": NetworkPolicy,
    "poddisruptionbudgets.policy": DisruptionBudget,
    "horizontalpodautoscalers.autoscaling": Autoscaler,
    "scaledobjects.keda.sh": Autoscaler,
    "events": Event,
}
"""What is read, by the name that kubectl has for it."""
_OURS: Final = (Deployment, Pod, Service)
"""Of these only what has Marway's label."""

T = TypeVar("T", bound=Object)


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is in the namespace.

    Attributes:
        secrets: Their names; None when they may not be listed.
        unread: Kinds that may not be listed.
    """

    namespace: str
    objects: tuple[Object, ...] = ()
    secrets: frozenset[str] | None = None
    unread: frozenset[str] = frozenset()

    def of(self, kind: type[T]) -> tuple[T, ...]:
        """Return all objects of a kind."""
        return tuple(each for each in self.objects if isinstance(each, kind))

    def pods_of(self, component: str) -> tuple[Pod, ...]:
        """Return a component's pods, without those that are being terminated."""
        return tuple(pod for pod in self.of(Pod) if pod.component == component and not pod.leaving)


class _NotRead(Exception):
    """A kind may not be listed."""


class Kubectl:
    """Calls kubectl.

    Args:
        namespace: Where to look.
        context: Which cluster; None for the current one.
    """

    def __init__(self, *, namespace: str, context: str | None = None) -> None:
        self.namespace = namespace
        self._context = context

    def read(self) -> Cluster:
        """Return what is in the namespace.

        Raises:
            InvalidSettings: There is no kubectl.
            Unavailable: It cannot reach the cluster, or prints something else than it should.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise InvalidSettings(
                "there is no kubectl on PATH, through which `marway doctor --cluster` looks: install it "
                "(https://kubernetes.io/docs/tasks/tools/) and point it at the cluster"
            )
        # Called at the same time: each takes a round trip or several.
        with ThreadPoolExecutor(max_workers=5, thread_name_prefix="kubectl") as threads:
            secrets = threads.submit(self._secrets, program)
            found = dict(zip(_KINDS, threads.map(lambda names: self._get(program, names), _KINDS), strict=True))
        return Cluster(
            self.namespace,
            objects=tuple(each for items in found.values() for each in items or ()),
            secrets=secrets.result(),
            unread=frozenset(names for names, items in found.items() if items is None),
        )

    def _get(self, program: str, names: str) -> tuple[Object, ...] | None:
        """Return all objects of a kind; None if they may not be listed."""
        kind = _KINDS[names]
        try:
            ours = ("--selector", MARWAY) if kind in _OURS else ()
            text = self._call(program, "get", names, *ours, "--output", "json")
        except _NotRead:
            return None
        if text is None:
            return ()
        try:
            return tuple(kind.model_validate(item) for item in json.loads(text)["items"])
        except (ValueError, KeyError, TypeError, ValidationError) as exc:
            raise Unavailable(
                f"kubectl get {names} printed something else than a list of them: {clip(text, 80)!r}"
            ) from exc

    def _secrets(self, program: str) -> frozenset[str] | None:
        # As a table: for any other output kubectl would fetch the values as well.
        try:
            text = self._call(program, "get", "secrets", "--no-headers")
        except _NotRead:
            return None
        return frozenset(line.split()[0] for line in (text or "").splitlines() if line.strip())

    def _call(self, program: str, *arguments: str) -> str | None:
        """Return what kubectl prints; None if the cluster knows no such kind."""
        where: Sequence[str] = ["--namespace", self.namespace, "--request-timeout", "20s"]
        if self._context is not None:
            where = [*where, "--context", self._context]
        try:
            done = subprocess.run(
                [program, *arguments, *where], capture_output=True, text=True, timeout=_CALL_S, check=False
            )
        except (OSError, UnicodeDecodeError) as exc:
            raise Unavailable(f"kubectl does not run: {exc}") from exc
        except subprocess.TimeoutExpired as exc:
            raise Unavailable(f"kubectl gave no answer within {_CALL_S:g} s: is the cluster reachable?") from exc
        if done.returncode == 0:
            return done.stdout
        if _FORBIDDEN in done.stderr:
            raise _NotRead
        if _UNKNOWN_KIND in done.stderr:
            return None
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"status {done.returncode}")
        raise Unavailable(f"kubectl cannot read the cluster: {clip(last.strip(), 300)}")
