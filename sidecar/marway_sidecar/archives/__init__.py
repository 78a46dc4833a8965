"""Fetches of archives into the archive store (`marway.archive_store`), each once whoever waits for it."""

from marway_sidecar.archives.fetches import Fetches

__all__ = ["Fetches"]
