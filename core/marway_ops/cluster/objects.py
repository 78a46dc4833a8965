"""Kubernetes objects, as far as the checks need them, as `kubectl get -o json` prints them.

Each attribute says where in the document it is; what is not there, or null, has its default.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "GATEWAY",
    "MARWAY",
    "POD",
    "SIDECAR",
    "Autoscaler",
    "Container",
    "ContainerStatus",
    "Deployment",
    "DisruptionBudget",
    "EndpointSlice",
    "Event",
    "Mount",
    "NetworkPolicy",
    "Object",
    "Pod",
    "Selector",
    "Service",
    "Volume",
]

MARWAY: Final = "app.kubernetes.io/part-of=marway"
GATEWAY, POD = "gateway", "pod"
SIDECAR: Final = "sidecar"
"""Name of the sidecar's container; all others of a pod are the runtime's, or run beside it."""
_COMPONENT: Final = "app.kubernetes.io/component"

T = TypeVar("T")
Items = Annotated[tuple[T, ...], BeforeValidator(lambda value: () if value is None else value)]
"""A list; Go writes an empty one as null."""


def _at(default: Any, *path: str) -> Any:
    return Field(default, validation_alias=AliasPath(*path))


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Object(_Part):
    """Any object."""

    name: str = Field(validation_alias=AliasPath("metadata", "name"))
    labels: Mapping[str, str] = _at({}, "metadata", "labels")

    @property
    def component(self) -> str:
        """`gateway`, `pod`, or nothing that we know."""
        return self.labels.get(_COMPONENT, "")


class Selector(_Part):
    """Which labels are meant; an empty one means every pod."""

    match_labels: Mapping[str, str] = {}
    match_expressions: tuple[Mapping[str, Any], ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether labels are among those that are meant."""
        return self.match_labels.items() <= labels.items() and all(
            _fits(labels, expression) for expression in self.match_expressions
        )


def _fits(labels: Mapping[str, str], expression: Mapping[str, Any]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


class _Condition(_Part):
    """Whether something is so, and why."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class Service(Object):
    """A Service."""

    cluster_ip: str = _at("", "spec", "clusterIP")
    selector: Mapping[str, str] = _at({}, "spec", "selector")


class _Endpoint(_Part):
    addresses: Items[str] = ()


class EndpointSlice(Object):
    """Some addresses of a Service."""

    endpoints: Items[_Endpoint] = ()


class NetworkPolicy(Object):
    """A NetworkPolicy."""

    pod_selector: Selector = _at(Selector(), "spec", "podSelector")
    policy_types: Items[str] = _at(("Ingress",), "spec", "policyTypes")


class DisruptionBudget(Object):
    """A PodDisruptionBudget; without a selector it means no pod."""

    selector: Selector | None = _at(None, "spec", "selector")


class Autoscaler(Object):
    """A HorizontalPodAutoscaler or KEDA's ScaledObject."""

    kind: str = ""
    conditions: Items[_Condition] = _at((), "status", "conditions")


class Event(Object):
    """Something that was noted about an object, whose name is `involved`."""

    involved: str = _at("", "involvedObject", "name")
    reason: str = ""
    message: str = ""


class _Secret(_Part):
    """A Secret that something needs."""

    name: str = Field("", validation_alias=AliasChoices("name", "secretName"))
    optional: bool = False


class _EnvSource(_Part):
    secret: _Secret | None = _at(None, "secretRef")


class _EnvVariable(_Part):
    name: str
    value: str = ""
    secret: _Secret | None = _at(None, "valueFrom", "secretKeyRef")


class Mount(_Part):
    """Where a volume is in a container."""

    name: str
    mount_path: str
    read_only: bool = False


class Container(_Part):
    """A container of a pod."""

    name: str
    image: str = ""
    command: Items[str] = ()
    args: Items[str] = ()
    env: Items[_EnvVariable] = ()
    env_from: Items[_EnvSource] = ()
    volume_mounts: Items[Mount] = ()

    def secrets(self) -> Iterator[_Secret]:
        """Yield the secrets that its environment comes from."""
        sources: tuple[_EnvSource | _EnvVariable, ...] = (*self.env_from, *self.env)
        return (each.secret for each in sources if each.secret is not None)

    def flag(self, name: str) -> str | None:
        """Return what follows a flag on its command line."""
        words = [*self.command, *self.args]
        for word, following in zip(words, [*words[1:], ""], strict=True):
            if word == name:
                return following
            if word.startswith(f"{name}="):
                return word.partition("=")[2]
        return None

    def variable(self, name: str) -> str | None:
        """Return the value of a variable that its manifest sets."""
        return next((each.value for each in self.env if each.name == name), None)


class _ProjectedSource(_Part):
    secret: _Secret | None = None
    service_account_token: Mapping[str, Any] | None = None


class Volume(_Part):
    """A volume of a pod, as far as it holds secrets."""

    name: str
    secret: _Secret | None = None
    sources: Items[_ProjectedSource] = _at((), "projected", "sources")

    def secrets(self) -> Iterator[_Secret]:
        """Yield the secrets in it."""
        return (each for each in (self.secret, *(source.secret for source in self.sources)) if each is not None)

    @property
    def has_token(self) -> bool:
        """Whether a service account's token is in it, for the API or for somebody else."""
        return any(source.service_account_token is not None for source in self.sources)


class PodSpec(_Part):
    """What a pod is made of."""

    containers: tuple[Container, ...] = ()
    init_containers: Items[Container] = ()
    volumes: Items[Volume] = ()

    @property
    def every_container(self) -> tuple[Container, ...]:
        """Init containers too, of which the runtime is one."""
        return (*self.init_containers, *self.containers)


class _Waiting(_Part):
    reason: str = ""
    message: str = ""


class _Terminated(_Part):
    exit_code: int = 0
    reason: str = ""


class ContainerStatus(_Part):
    """What became of a container."""

    name: str
    waiting: _Waiting | None = _at(None, "state", "waiting")
    terminated: _Terminated | None = _at(None, "state", "terminated")
    last_terminated: _Terminated | None = _at(None, "lastState", "terminated")


class Pod(Object):
    """A pod."""

    deletion_timestamp: str | None = _at(None, "metadata", "deletionTimestamp")
    spec: PodSpec = PodSpec()
    phase: str = _at("", "status", "phase")
    ip: str = _at("", "status", "podIP")
    conditions: Items[_Condition] = _at((), "status", "conditions")
    container_statuses: Items[ContainerStatus] = _at((), "status", "containerStatuses")
    init_container_statuses: Items[ContainerStatus] = _at((), "status", "initContainerStatuses")

    @property
    def statuses(self) -> tuple[ContainerStatus, ...]:
        return (*self.init_container_statuses, *self.container_statuses)

    @property
    def leaving(self) -> bool:
        return self.deletion_timestamp is not None

    @property
    def ready(self) -> bool:
        return any(each.type == "Ready" and each.status == "True" for each in self.conditions)

    @property
    def runtimes(self) -> tuple[Container, ...]:
        """The containers in which models' code runs: all of a pod but the sidecar's."""
        if self.component != POD:
            return ()
        return tuple(each for each in self.spec.every_container if each.name != SIDECAR)


class Deployment(Object):
    """A Deployment."""

    replicas: int = _at(1, "spec", "replicas")
    pod: PodSpec = _at(PodSpec(), "spec", "template", "spec")
    ready_replicas: int = _at(0, "status", "readyReplicas")
    conditions: Items[_Condition] = _at((), "status", "conditions")
