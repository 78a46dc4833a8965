"""The backend for any model server that is asked over HTTP."""

from marway_sidecar.backends.http_server.backend import HttpBackend

__all__ = ["HttpBackend"]
