"""EndpointSlices (`discovery.k8s.io/v1`): what they say of a Service's pods, several of them taken together.

Of an endpoint's conditions only `terminating` decides anything here. `ready` and `serving` are what the kubelet's probe
said up to a probe period ago, while this gateway asks each pod itself every second and hears of changes at once: a pod
that is not ready yet is known, watched and asked to load models while it starts, and gets requests when it says so
itself. `terminating` is what no probe can see: the pod was told to go, and its address will soon be somebody else's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from marway_gateway.addresses import PodAddress
from marway_gateway.discovery.discovery import FoundPod

__all__ = ["EndpointSlice", "EndpointSliceList", "Status", "WatchEvent", "pods_of"]

ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
"""A name as the API gives objects (RFC 1123)."""
_FAMILIES: Final = ("IPv4", "IPv6")
"""In order of preference: a sidecar listens on 0.0.0.0 unless told otherwise."""


_NULL_IS_NONE: Final = BeforeValidator(lambda value: () if value is None else value)
"""Go writes an empty list as null."""
_NULL_IS_EMPTY: Final = BeforeValidator(lambda value: {} if value is None else value)


class _ApiObject(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel)


class ListMetadata(_ApiObject):
    """Up to which change a list or a watch is, and what gets a list's next page."""

    resource_version: Annotated[str, StringConstraints(min_length=1)]
    continue_: str = Field("", alias="continue")


class Metadata(ListMetadata):
    """What of an object's metadata is used."""

    name: ObjectName


class Conditions(_ApiObject):
    """An endpoint's state; what is not said is None, and not terminating."""

    terminating: bool | None = None


class TargetRef(_ApiObject):
    """The object that an endpoint stands for."""

    kind: str = ""
    name: ObjectName
    uid: str = ""


class Endpoint(_ApiObject):
    """One pod in a slice. Only the first of its addresses counts: so says the API, and kube-proxy does the same."""

    addresses: Annotated[tuple[str, ...], Field(min_length=1)]
    conditions: Annotated[Conditions, _NULL_IS_EMPTY] = Conditions()
    target_ref: TargetRef | None = None


class EndpointSlice(_ApiObject):
    """Some of a Service's endpoints, all of one kind of address."""

    metadata: Metadata
    address_type: str
    endpoints: Annotated[tuple[Endpoint, ...], _NULL_IS_NONE] = ()


class EndpointSliceList(_ApiObject):
    """A list, or a page of one."""

    metadata: ListMetadata
    items: Annotated[tuple[EndpointSlice, ...], _NULL_IS_NONE] = ()


class Status(_ApiObject):
    """What the API says instead, when it cannot or will not do something."""

    code: int = 0
    reason: str = ""
    message: str = ""


class WatchEvent(_ApiObject):
    """One line of a watch, its object as it came."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: dict[str, Any]

    @property
    def slice(self) -> EndpointSlice:
        """The slice that was added, modified or deleted; raises ValueError where it is none."""
        return EndpointSlice.model_validate(self.object)

    @property
    def version(self) -> str:
        """How far the watch is after a bookmark; raises ValueError where it does not say."""
        return ListMetadata.model_validate(self.object.get("metadata")).resource_version


def pods_of(slices: Iterable[EndpointSlice], *, port: int) -> tuple[FoundPod, ...]:
    """Return the pods that some slices name together, in the order of their names.

    A pod is called by its own name, which every gateway sees alike and which stays when its address is known under
    another family; an endpoint that stands for no pod by address and port. A pod may be in several slices, of both
    families or while it moves from one to another: it is leaving as soon as one of them says so, because no pod comes
    back from that. Of two pods of one name (a StatefulSet's old and new one) the one that stays is meant.

    Args:
        slices: Of one Service.
        port: Where sidecars listen.
    """
    addresses: dict[tuple[str, str], list[tuple[int, str]]] = {}
    leaving: set[tuple[str, str]] = set()
    for each in slices:
        if each.address_type not in _FAMILIES:
            continue  # FQDN: deprecated, and of no pod
        for endpoint in each.endpoints:
            address = _ip(endpoint.addresses[0])
            if address is None:
                continue
            ref = endpoint.target_ref
            named = ref is not None and ref.kind in ("", "Pod")
            key = (ref.name, ref.uid) if ref is not None and named else (PodAddress.at(address, port).name, "")
            addresses.setdefault(key, []).append((_FAMILIES.index(each.address_type), address))
            if endpoint.conditions.terminating:
                leaving.add(key)
    found: dict[str, FoundPod] = {}
    for key in sorted(addresses, key=lambda key: (key not in leaving, key)):  # of one name, the one that stays is last
        name, _ = key
        _, address = min(addresses[key])
        found[name] = FoundPod(PodAddress.at(address, port, name=name), key in leaving)
    return tuple(found[name] for name in sorted(found))


def _ip(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None
