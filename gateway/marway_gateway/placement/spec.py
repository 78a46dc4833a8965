"""Which pods may serve a version, how many should, and in which order they come.

Rendezvous hashing (Thaler and Ravishankar, 1998): each pod gets a score from its name and the version, and the
eligible pods in falling order of score are the version's list. Every gateway computes the same list with no word
between them, and a pod that comes or goes moves only the versions that it wins or held. What a pod is (backend, pool)
decides whether it is in the list; its health decides only whether it is asked, so a version returns to its home when
that is well again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Final, NamedTuple

from marway.records import ServingSettings, VersionRecord
from marway_gateway.placement.pod import Pod, VersionKey

__all__ = ["PlacementSpec", "placement_spec", "ranked", "score"]

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


def score(pod: str, name: str, version: str) -> int:
    """Return a pod's score for a version: 64 bits of BLAKE2b, the same on every machine and in every process."""
    digest = blake2b(f"{pod}\0{name}\0{version}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")


def ranked(pods: Iterable[Pod], key: VersionKey, backend: str | None, pool: str | None) -> tuple[Pod, ...]:
    """Return those of the pods that may serve a version, in falling order of score."""
    eligible = (pod for pod in pods if pod.may_serve(backend, pool))
    return tuple(sorted(eligible, key=lambda pod: (score(pod.name, *key), pod.name), reverse=True))
