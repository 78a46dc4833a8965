"""What happened to models, as CloudEvents: kept in the registry's store, and sent to webhooks.

::

    events/date=<day>/<id>.json             create-only, Event: by the day (UTC) on which it happened
    events/pending/<id>.json                compare-and-swap, Pending: not sent to every webhook yet
    events/dead/<webhook>/<id>.json         create-only, Dead: given up
    events/cursors/<model>.json             compare-and-swap, up to which change a model's history was looked through
    events/cursors-made.json                create-only: models without a cursor are new since

Ids follow from what happened, so that whoever sees it may raise it, and it is one event however many do.
"""

from __future__ import annotations

from marway_observations.events.event import Event
from marway_observations.events.log import EventLog

__all__ = ["Event", "EventLog"]
