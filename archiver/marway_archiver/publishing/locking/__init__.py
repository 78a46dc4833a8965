"""From an archive's requirements file to wheels with their digests."""

from marway_archiver.publishing.locking.lock import Locked, LockWish, lock_requirements

__all__ = ["LockWish", "Locked", "lock_requirements"]
