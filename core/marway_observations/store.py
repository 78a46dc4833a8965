"""Which object store has observations and feedback."""

from __future__ import annotations

import os

from marway.objects import ObjectStore, open_store
from marway_observations.layout import OBSERVATIONS_ENV

__all__ = ["observations_url_of", "open_observations"]


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
