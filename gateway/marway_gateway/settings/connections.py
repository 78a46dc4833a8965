"""How many clients may be connected, and how slow they may be."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from marway.settings import ComponentSettings
from marway_gateway.settings.units import Bytes, Count, Seconds

__all__ = ["ConnectionSettings"]


class ConnectionSettings(ComponentSettings):
    """How many clients may be connected, and how slow they may be."""

    max_connections: Count = 8192
    """Client connections to the public HTTP port; more are answered 503 and closed. 8192 with the same number of
    connections to pods stays below the 20,000 or so files that containers may usually open."""
    grpc_max_connections: Count = 1024
    """Client connections to the gRPC port; more are closed as they come. 1024, as one carries many calls; with those of
    `max_connections` and to pods they stay below the 20,000 or so files that containers may usually open."""
    grpc_idle_s: Annotated[float, Field(ge=1, le=86400)] = 300.0
    """Time in seconds after which a gRPC connection without a call is asked to close (GOAWAY), which clients take for
    what it is and connect anew. 300, so that pauses between requests seldom cost a new connection."""
    header_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Time in seconds in which a client must send a request's headers, from connecting or from their first byte. 5
    outlasts a bad mobile network and closes a slow-loris connection soon."""
    body_timeout_s: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Time in seconds in which a client must send a request's body, which each `body_min_rate` bytes of it prolong by
    a second; time in which we do not read is not counted. 5, as for headers; after it the connection is closed."""
    body_min_rate: Bytes = 1024
    """Bytes a second at which a body must come after that. 1 KiB/s is slower than any network of today."""
    write_timeout_s: Seconds = 30.0
    """Time in seconds in which a client may read nothing of an answer that fills its connection; then it is closed. 30
    outlasts a pause of the network and frees what a client that sleeps would hold for ever."""
