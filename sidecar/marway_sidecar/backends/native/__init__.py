"""The backend for Marway's own engine: it speaks to the workers themselves, with no model server in between."""

from marway_sidecar.backends.native.backend import NativeBackend
from marway_sidecar.backends.native.server import NativeServer

__all__ = ["NativeBackend", "NativeServer"]
