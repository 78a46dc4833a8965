"""The model pool: what the sidecar does so that any version is servable within the memory there is."""

from marway_sidecar.lifecycle.pool import ModelPool
from marway_sidecar.lifecycle.server_instance import Warm
from marway_sidecar.scheduler.lease import Lease, LeasedServer
from marway_sidecar.scheduler.work import CallerLeft, Work

__all__ = ["CallerLeft", "Lease", "LeasedServer", "ModelPool", "Warm", "Work"]
