"""The model pool: what the sidecar does so that any version is servable within the memory there is."""

from marway_sidecar.pool.calls import Lease, LeasedServer
from marway_sidecar.pool.pool import ModelPool
from marway_sidecar.pool.session import Warm
from marway_sidecar.pool.work import CallerLeft, Work

__all__ = ["CallerLeft", "Lease", "LeasedServer", "ModelPool", "Warm", "Work"]
