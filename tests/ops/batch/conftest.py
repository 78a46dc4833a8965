from __future__ import annotations

from gateway.conftest import make_pod
from observations.verbs.conftest import marway
from support.registry_fixtures import directory, publish, registry, store_url

__all__ = ["directory", "make_pod", "marway", "publish", "registry", "store_url"]
