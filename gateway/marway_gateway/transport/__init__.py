"""The HTTP client that carries predictions to sidecars.

One of our own, because it is what a prediction costs most: against a pod that answers at once it takes a third of the
CPU of the best client there is for asyncio. It is kept to what sidecars need: HTTP/1.1, one request at a time on a
connection, bodies in memory or as streams, and nothing else. llhttp, by httptools, does the parsing.
"""

from marway_gateway.transport.client import Upstream, answered, reply_of

__all__ = ["Upstream", "answered", "reply_of"]
