"""How predictions get to sidecars and back: small ones many at a time over frames, large ones and streams over HTTP.

Both ends of it are kept to what sidecars need, because it is what a small prediction costs most.
"""

from marway_gateway.transport.client import Upstream

__all__ = ["Upstream"]
