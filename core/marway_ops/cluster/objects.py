"""Kubernetes objects, as far as the checks need them, as `kubectl get -o json` prints them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

__all__ = [
    "COMPONENT",
    "GATEWAY",
    "MARWAY",
    "POD",
    "SIDECAR",
    "Autoscaler",
    "Condition",
    "DisruptionBudget",
    "EndpointSlice",
    "Event",
    "Metadata",
    "NetworkPolicy",
    "Object",
    "Part",
    "Selector",
    "Service",
    "none_as_empty",
]

COMPONENT: Final = "app.kubernetes.io/component"
MARWAY: Final = "app.kubernetes.io/part-of=marway"
GATEWAY, POD = "gateway", "pod"
SIDECAR: Final = "sidecar"
"""Name of the sidecar's container; all others of a pod are the runtime's, or run beside it."""


def none_as_empty(value: Any) -> Any:
    return () if value is None else value  # Go writes an empty list as null


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class Selector(Part):
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


class Metadata(Part):
    """What every object has."""

    name: str
    labels: Mapping[str, str] = {}


class Object(Part):
    """Any object."""

    metadata: Metadata

    @property
    def name(self) -> str:
        return self.metadata.name

    @property
    def component(self) -> str:
        """`gateway`, `pod`, or nothing that we know."""
        return self.metadata.labels.get(COMPONENT, "")


class Condition(Part):
    """Whether something is so, and why."""

    type: str
    status: str
    reason: str = ""
    message: str = ""


class _ServiceSpec(Part):
    cluster_ip: str = Field("", alias="clusterIP")
    selector: Mapping[str, str] = {}


class Service(Object):
    """A Service."""

    spec: _ServiceSpec = _ServiceSpec()


class _Endpoint(Part):
    addresses: Annotated[tuple[str, ...], BeforeValidator(none_as_empty)] = ()


class EndpointSlice(Object):
    """Some addresses of a Service."""

    endpoints: Annotated[tuple[_Endpoint, ...], BeforeValidator(none_as_empty)] = ()


class _NetworkPolicySpec(Part):
    pod_selector: Selector = Selector()
    policy_types: Annotated[tuple[str, ...], BeforeValidator(none_as_empty)] = ("Ingress",)


class NetworkPolicy(Object):
    """A NetworkPolicy."""

    spec: _NetworkPolicySpec = _NetworkPolicySpec()


class _BudgetSpec(Part):
    selector: Selector | None = None


class DisruptionBudget(Object):
    """A PodDisruptionBudget; without a selector it means no pod."""

    spec: _BudgetSpec = _BudgetSpec()


class _AutoscalerStatus(Part):
    conditions: Annotated[tuple[Condition, ...], BeforeValidator(none_as_empty)] = ()


class Autoscaler(Object):
    """A HorizontalPodAutoscaler or KEDA's ScaledObject."""

    kind: str = ""
    status: _AutoscalerStatus = _AutoscalerStatus()


class _Involved(Part):
    kind: str = ""
    name: str = ""


class Event(Object):
    """Something that was noted about an object."""

    involved_object: _Involved = _Involved()
    type: str = "Normal"
    reason: str = ""
    message: str = ""
