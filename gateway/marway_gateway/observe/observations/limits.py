"""When observations are written, and how much may wait for that."""

from __future__ import annotations

from typing import NamedTuple

from marway_gateway.settings import GatewaySettings

__all__ = ["Limits"]


class Limits(NamedTuple):
    """When files are written, and how much may wait for that.

    Attributes:
        flush_s: How long rows wait at most before they are written, while the store is there, in seconds.
        flush_rows, flush_bytes: Rows and bytes of one model from which on they wait no longer.
        buffer_rows, buffer_bytes: Rows and bytes that may wait, of all models.
        body_bytes: Larger inputs and outputs are not kept.
    """

    flush_s: float = 10.0
    flush_rows: int = 50_000
    flush_bytes: int = 16 * 1024 * 1024
    buffer_rows: int = 100_000
    buffer_bytes: int = 64 * 1024 * 1024
    body_bytes: int = 1024 * 1024

    @classmethod
    def of(cls, settings: GatewaySettings) -> Limits:
        """Return those that a gateway is set to."""
        return cls(
            flush_s=settings.observations_flush_s,
            flush_rows=settings.observations_flush_rows,
            flush_bytes=settings.observations_flush_bytes,
            buffer_rows=settings.observations_buffer_rows,
            buffer_bytes=settings.observations_buffer_bytes,
            body_bytes=settings.observations_body_bytes,
        )
