from __future__ import annotations

from support.registry_fixtures import directory, publish, registry, store_url

__all__ = ["directory", "publish", "registry", "store_url"]
