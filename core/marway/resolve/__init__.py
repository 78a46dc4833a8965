"""From a reference to a version without a look-up in nearly all cases: what gateway and sidecar both need.

Everything here runs on one event loop; the registry's blocking calls go through one bounded thread pool.
"""

from marway.resolve.reader import RegistryReader
from marway.resolve.resolved import Resolved
from marway.resolve.resolver import Resolver

__all__ = ["RegistryReader", "Resolved", "Resolver"]
