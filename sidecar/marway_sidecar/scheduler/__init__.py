"""Which request has which worker, when, and in one call with which others."""

from marway_sidecar.scheduler.queue import Job
from marway_sidecar.scheduler.streams import StreamJob

__all__ = ["Job", "StreamJob"]
