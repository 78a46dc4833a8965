"""Predictions that are answered later."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from marway.settings import ComponentSettings
from marway_gateway.settings.units import Bytes, Count, Seconds

__all__ = ["LaterSettings"]


class LaterSettings(ComponentSettings):
    """Predictions that are answered later."""

    async_requests: Annotated[int, Field(ge=0)] = 1000
    """Predictions with `Prefer: respond-async` that this gateway may have taken in and not yet answered; more are
    refused with 429. 0 turns it off: the header is then passed over, and such requests are answered at once."""
    async_bytes: Bytes = 256 * 1024 * 1024
    """Bytes of their bodies, which are in the store of observations and not in memory. 256 MiB holds four bodies of the
    largest size, or many thousand usual ones."""
    async_concurrency: Count = 16
    """Such predictions worked on at once, each with its body and its answer in memory. 16, as they are for slow models;
    the rest wait in the store."""
    async_timeout_s: Seconds = 3600.0
    """Time in seconds from being taken in to the answer, where the caller names none, at most `max_timeout_s`.
    An hour: nobody holds a connection meanwhile."""
    async_keep_s: Seconds = 86400.0
    """How long in seconds an answer is kept to be fetched. A day."""
    async_lease_s: Annotated[float, Field(ge=1, le=3600)] = 30.0
    """After how long in seconds without a sign of the gateway that works on such a prediction another takes it up. 30
    outlasts a store that is slow for a moment; each one at work is a small write every third of it."""
