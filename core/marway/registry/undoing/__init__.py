"""What takes back: rollbacks of labels, deletions of versions and of whole models."""

from __future__ import annotations

from marway.registry.undoing.deleting import Deleting
from marway.registry.undoing.rolling_back import RollingBack

__all__ = ["Deleting", "RollingBack"]
