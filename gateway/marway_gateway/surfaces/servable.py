"""Whether a version can be asked, and which versions there are, as the standard protocols want to know it."""

from __future__ import annotations

from marway.errors import NoPodAvailable
from marway.records import VersionRecord
from marway.registry import Registry
from marway_gateway.gateway import Gateway
from marway_gateway.placement import placement_spec

__all__ = ["check_servable", "versions_of"]


async def check_servable(gateway: Gateway, name: str, selector: str | None) -> VersionRecord:
    """Return the record of a version that can be asked: it exists, and a pod takes requests for it.

    Whether a pod has it loaded already says nothing: who asks for it has it loaded.

    Raises:
        InvalidReference, NotFound: There is no such version.
        RegistryUnavailable: The registry does not answer.
        NoPodAvailable: No pod takes requests now.
    """
    resolved = await gateway.resolver.resolve(name, selector)
    record = resolved.record
    spec = placement_spec(record, resolved.serving, gateway.settings.algorithm_pools)
    if not gateway.pods.ready(spec):
        raise NoPodAvailable(
            f"no pod can take {record.name} {record.version} now: {gateway.pods.troubles(spec)}",
            model=record.name,
            version=record.version,
            retry_after_s=gateway.settings.health_interval_s,
        )
    return record


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
