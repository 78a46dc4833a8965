"""An object in the registry's store that one process alone writes, over and over, such as what it has counted."""

from __future__ import annotations

from typing import Final

from marway.errors import OutcomeUnknown
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore

__all__ = ["put_own"]

_TRIES: Final = 3


def put_own(store: ObjectStore, key: str, data: bytes, tag: str | None) -> str:
    """Write over what this process alone writes, whatever became of the write before; return its tag. Blocks.

    Args:
        store: Where.
        key: Of the object.
        data: All of it.
        tag: Of the last write that is known to be done; None where there was none.

    Raises:
        RegistryUnavailable, OutcomeUnknown: It was not written, or may not have been.
    """
    for _ in range(_TRIES):
        try:
            return store.create(key, data) if tag is None else store.replace(key, data, etag=tag)
        except (ObjectExists, ObjectChanged, ObjectMissing):
            # Nobody else writes it: this is our own last write, whose answer was lost, or `marway gc` took it away.
            tag = store.tag(key)
    raise OutcomeUnknown(f"{key} may not have been written: it changes, and no other process should write it")
