"""The archive store: fetched archives under their digest, in a directory that pods may share."""

from marway_sidecar.archives.fetches import Fetches
from marway_sidecar.archives.layout import ArchiveUse
from marway_sidecar.archives.store import ArchiveStore, FetchOutcome

__all__ = ["ArchiveStore", "ArchiveUse", "FetchOutcome", "Fetches"]
