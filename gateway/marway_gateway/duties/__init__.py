"""What one gateway among all does in the background: events, quality, drift. Whoever holds a lease does it."""

from marway_gateway.duties.duties import Duties, DutyMetrics, Job
from marway_gateway.duties.lease import Lease

__all__ = ["Duties", "DutyMetrics", "Job", "Lease"]
