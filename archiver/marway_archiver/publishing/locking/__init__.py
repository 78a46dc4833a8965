"""From an archive's requirements file to wheels with their digests."""

from marway_archiver.publishing.locking.lock import Locked, LockOptions, lock_requirements

__all__ = ["LockOptions", "Locked", "lock_requirements"]
