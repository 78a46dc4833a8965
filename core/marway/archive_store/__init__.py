"""The archive store: fetched archives under their digest, in a directory that processes may share."""

from marway.archive_store.layout import ArchiveUse
from marway.archive_store.store import ArchiveStore, FetchOutcome

__all__ = ["ArchiveStore", "ArchiveUse", "FetchOutcome"]
