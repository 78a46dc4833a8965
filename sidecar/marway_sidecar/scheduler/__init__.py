"""Which request has which worker, when, and in one call with which others."""

from marway_sidecar.scheduler.job import CallerLeft, Job, StreamJob

__all__ = ["CallerLeft", "Job", "StreamJob"]
