"""The model pool: what the sidecar does so that any version is servable within the memory there is."""

from marway_sidecar.lifecycle.pool import ModelPool
from marway_sidecar.lifecycle.transitions import Warm

__all__ = ["ModelPool", "Warm"]
