"""Which object store has observations and feedback."""

from __future__ import annotations

import os
from typing import Any, cast

from marway.objects import ObjectStore, open_store
from marway.registry import Registry
from marway_observations.layout import OBSERVATIONS_ENV

__all__ = ["observations_url_of", "open_observations", "store_beside_models"]


def observations_url_of(registry_url: str, observations_url: str | None = None) -> str:
    """Return the URL of the store that has observations and feedback.

    Args:
        registry_url: The registry's, which has them where nothing else is said.
        observations_url: What a flag or a setting says; None asks `MARWAY_OBSERVATIONS`.
    """
    return observations_url or os.environ.get(OBSERVATIONS_ENV) or registry_url


def open_observations(registry_url: str, observations_url: str | None = None) -> ObjectStore:
    """Open the store that has observations and feedback.

    Args:
        registry_url: The registry's, which has them where nothing else is said.
        observations_url: What a flag or a setting says; None asks `MARWAY_OBSERVATIONS`.

    Raises:
        InvalidSettings: The URL is of no known kind, or names nothing that can be used.
    """
    return open_store(observations_url_of(registry_url, observations_url))


def store_beside_models(registry: Registry) -> ObjectStore:
    """Return a registry's store for what is kept beside its models: nothing is created there once the registry is gone.

    What is written to a directory whose volume is not mounted is lost when it is again, also feedback that had its 202.
    So a create raises `RegistryUnavailable` there, as a change of the registry does.
    """
    return cast(ObjectStore, _BesideModels(registry))


class _BesideModels:
    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def create(self, key: str, data: bytes) -> str:
        self._registry.check_there()
        return self._registry.store.create(key, data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._registry.store, name)
