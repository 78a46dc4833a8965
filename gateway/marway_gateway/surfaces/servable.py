"""Whether a version can be asked, and which versions there are, as the standard protocols want to know it."""

from __future__ import annotations

from marway.errors import NoPodAvailable
from marway.graphs import GRAPH_BACKEND
from marway.records import VersionRecord
from marway.registry import Registry
from marway.resolve.resolved import Resolved
from marway_gateway.admin.graph_versions import of_node
from marway_gateway.gateway import Gateway
from marway_gateway.placement import placement_spec

__all__ = ["check_servable", "versions_of"]


async def check_servable(gateway: Gateway, name: str, selector: str | None) -> VersionRecord:
    """Return the record of a version that can be asked: it exists, and a pod takes requests for it.

    A graph can be asked where all can that its nodes need. Whether a pod has it loaded already says nothing: who asks
    for it has it loaded.

    Raises:
        InvalidReference, NotFound: There is no such version.
        RegistryUnavailable: The registry does not answer.
        InvalidGraph: It is a graph that has come to hold itself.
        NoPodAvailable: No pod takes requests now; of a graph, the message names the node.
    """
    resolved = await gateway.resolver.resolve(name, selector)
    record = resolved.record
    if record.backend != GRAPH_BACKEND:
        _check_pods(gateway, resolved)
        return record
    for part in await gateway.loader.graphs.parts(record):
        if part.needed and not part.is_table:
            try:
                _check_pods(gateway, part.resolved)
            except NoPodAvailable as exc:
                raise of_node(exc, part.node) from exc
    return record


def _check_pods(gateway: Gateway, resolved: Resolved) -> None:
    record = resolved.record
    spec = placement_spec(record, resolved.serving, gateway.settings.algorithm_pools)
    if not gateway.pods.ready(spec):
        raise NoPodAvailable(
            f"no pod can take {record.name} {record.version} now: {gateway.pods.troubles(spec)}",
            model=record.name,
            version=record.version,
            retry_after_s=gateway.settings.health_interval_s,
        )


async def versions_of(gateway: Gateway, name: str) -> tuple[str, ...]:
    """Return a model's versions that are not deleted, in the order of their names.

    Raises:
        RegistryUnavailable: The registry does not answer.
    """
    return await gateway.reader.call(_versions, gateway.reader.registry, name)


def _versions(registry: Registry, name: str) -> tuple[str, ...]:
    """Read them. Blocks."""
    deleted = registry.state(name).tombstones
    return tuple(version for version in registry.versions(name) if version not in deleted)
