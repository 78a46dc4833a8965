"""Which pods may serve a version, and how many should."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from marway.records import ServingSettings, VersionRecord
from marway_gateway.placement.pod import VersionKey

__all__ = ["PlacementSpec", "placement_spec"]

_ANY_OTHER: Final = "*"


class PlacementSpec(NamedTuple):
    """A version, and which pods may serve it.

    Attributes:
        key: The model's name and the version.
        backend: The model server that a pod must run, or None for any.
        pool: The pool that a pod must be of, or None for any.
        pods: How many pods serve it in normal load.
    """

    key: VersionKey
    backend: str | None = None
    pool: str | None = None
    pods: int = 1


def placement_spec(
    record: VersionRecord, serving: ServingSettings, algorithm_pools: Mapping[str, str]
) -> PlacementSpec:
    """Return which pods may serve a version now.

    Its pool is the one of its serving settings, else of its record, else the one that ``algorithm_pools`` gives its
    algorithm, or any other (``*``).
    """
    pool = serving.pool or record.pool
    if pool is None and algorithm_pools:
        pool = algorithm_pools.get(record.algorithm or _ANY_OTHER) or algorithm_pools.get(_ANY_OTHER)
    return PlacementSpec((record.name, record.version), record.backend, pool, serving.pods)
