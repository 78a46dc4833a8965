"""Reads a cluster through kubectl, with its user's rights. Nothing is written, and no secret's value is read."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from typing import Final

from marway.errors import InvalidSettings, Unavailable, clip
from marway_ops.cluster.objects import MARWAY, Object, Pod

__all__ = ["NAMESPACE", "Cluster", "Kind", "Kubectl"]

NAMESPACE: Final = "marway"
"""The namespace of the shipped manifests."""
_CALL_S: Final = 60.0
_FORBIDDEN: Final = "(Forbidden)"
_UNKNOWN_KIND: Final = "the server doesn't have a resource type"
_NONE: Final = '{"items": []}'
_NO_KUBECTL: Final = (
    "there is no kubectl on PATH, through which clusters are looked at: install it "
    "(https://kubernetes.io/docs/tasks/tools/) and point it at the cluster"
)


class Kind(Enum):
    """What is read, by the name that kubectl has for it."""

    DEPLOYMENTS = "deployments.apps"
    PODS = "pods"
    SERVICES = "services"
    ENDPOINTS = "endpointslices.discovery.k8s.io"
    POLICIES = "networkpolicies.networking.k8s.io"
    BUDGETS = "poddisruptionbudgets.policy"
    AUTOSCALERS = "horizontalpodautoscalers.autoscaling"
    SCALED_OBJECTS = "scaledobjects.keda.sh"
    EVENTS = "events"


_OURS: Final = (Kind.DEPLOYMENTS, Kind.PODS, Kind.SERVICES)
"""Of these only what has Marway's label."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is in the namespace.

    Attributes:
        found: Objects by their kind; None for those that may not be listed.
        secrets: Their names; None when they may not be listed.
    """

    namespace: str
    found: Mapping[Kind, tuple[Object, ...] | None]
    secrets: frozenset[str] | None

    def of(self, *kinds: Kind) -> tuple[Object, ...]:
        """Return all objects of these kinds."""
        return tuple(each for kind in kinds for each in self.found[kind] or ())

    def unread(self, kind: Kind) -> bool:
        """Return whether a kind may not be listed."""
        return self.found[kind] is None

    @property
    def pods(self) -> tuple[Pod, ...]:
        """All pods, those that are being terminated too."""
        return tuple(each for each in self.of(Kind.PODS) if isinstance(each, Pod))

    def pods_of(self, *components: str) -> tuple[Pod, ...]:
        """Return the pods of components, without those that are being terminated."""
        return tuple(pod for name in components for pod in self.pods if pod.component == name and not pod.leaving)


class Kubectl:
    """Calls kubectl for a namespace of a cluster: the current one if no ``context`` names another."""

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
            raise InvalidSettings(_NO_KUBECTL)
        # Called at the same time: each takes a round trip or several.
        with ThreadPoolExecutor(max_workers=5, thread_name_prefix="kubectl") as threads:
            secrets = threads.submit(self._secrets, program)
            found = dict(zip(Kind, threads.map(lambda kind: self._get(program, kind), Kind), strict=True))
        return Cluster(self.namespace, found, secrets.result())

    def command(self, *arguments: str) -> list[str]:
        """Return a command of kubectl for this namespace.

        Raises:
            InvalidSettings: There is no kubectl.
        """
        program = shutil.which("kubectl")
        if program is None:
            raise InvalidSettings(_NO_KUBECTL)
        where = ["--namespace", self.namespace]
        return [program, *arguments, *where, *(["--context", self._context] if self._context is not None else [])]

    def _get(self, program: str, kind: Kind) -> tuple[Object, ...] | None:
        """Return all objects of a kind; None if they may not be listed."""
        ours = ("--selector", MARWAY) if kind in _OURS else ()
        text = self._call(program, "get", kind.value, *ours, "--output", "json")
        if text is None:
            return None
        try:
            return tuple((Pod if kind == Kind.PODS else Object)(item) for item in json.loads(text)["items"])
        except (ValueError, KeyError, TypeError) as exc:
            raise Unavailable(
                f"kubectl get {kind.value} printed something else than a list of them: {clip(text, 80)!r}"
            ) from exc

    def _secrets(self, program: str) -> frozenset[str] | None:
        # As a table: for any other output kubectl would fetch the values as well.
        text = self._call(program, "get", "secrets", "--no-headers")
        return None if text is None else frozenset(line.split()[0] for line in text.splitlines() if line.strip())

    def _call(self, program: str, *arguments: str) -> str | None:
        """Return what kubectl prints; None if this may not be listed, an empty list if the cluster has no such kind."""
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
            return None
        if _UNKNOWN_KIND in done.stderr:
            return _NONE
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), f"status {done.returncode}")
        raise Unavailable(f"kubectl cannot read the cluster: {clip(last.strip(), 300)}")
