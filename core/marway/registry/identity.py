"""That a registry is there: an object that says so, which no writer makes unasked.

An empty directory may be the mount point of a volume that is gone, and an empty prefix a slip in a URL. Whoever wrote
there would be told that all went well, and nobody would ever read it. So a registry is made once, on purpose, and each
change looks first whether it is there, and still the same one.
"""

from __future__ import annotations

from typing import Final, TypeVar

from pydantic import BaseModel

from marway.errors import RegistryUnavailable
from marway.objects import ObjectExists, ObjectMissing, ObjectStore
from marway.process.identity import me
from marway.records import RegistryIdentity, utc_now
from marway.refs import new_ulid
from marway.registry import keys
from marway.registry.encoding import decode, encode

__all__ = ["Identified"]

T = TypeVar("T", bound=BaseModel)

_HOW: Final = (
    "if there should be one, see that its volume is mounted and the URL is right; to make a new one, publish with "
    "--create-registry"
)


class Identified:
    """What every part of the registry has: its store, and whether it may only be used where a registry is.

    Args:
        store: Where the objects are.
        must_exist: Whether changes are refused where no registry was made. What the `marway` command, the archiver,
            gateways and sidecars open asks for it (`open_registry`); who writes a store himself decides for himself.
    """

    def __init__(self, store: ObjectStore, *, must_exist: bool = False) -> None:
        self._store = store
        self._must_exist = must_exist
        self._identity: str | None = None

    @property
    def url(self) -> str:
        return self._store.url

    def identity(self) -> RegistryIdentity | None:
        """Return what says that this is a registry, or None where there is none, or one from before there was this."""
        try:
            return self._read(RegistryIdentity, keys.IDENTITY)
        except ObjectMissing:
            return None

    def exists(self) -> bool:
        """Return whether a registry is there; nothing is written to find out.

        Raises:
            InvalidRecord: What says so is damaged.
            RegistryUnavailable: It cannot be read.
        """
        return self._has_models() or self.identity() is not None

    def create(self) -> RegistryIdentity:
        """Make the registry, and return its identity: the one that it has, if it was made before."""
        made = RegistryIdentity(id=new_ulid(), created_at=utc_now(), created_by=me())
        try:
            self._create(keys.IDENTITY, made)
        except ObjectExists:
            return self._read(RegistryIdentity, keys.IDENTITY)
        return made

    def check_there(self) -> None:
        """Check, before a change, that the registry is there, and the one that it was before.

        One that holds models and was never given an identity is given one now.

        Raises:
            RegistryUnavailable: It is not there, or another one is; nothing was written.
        """
        if not self._must_exist:
            return
        found = self.identity()
        if found is None:
            if self._identity is not None or not self._has_models():
                raise self._not_there()
            found = self.create()
        if self._identity is None:
            self._identity = found.id
        elif found.id != self._identity:
            raise RegistryUnavailable(
                f"{self.url} holds another registry now ({found.id}) than before ({self._identity}): was another "
                "volume mounted? Nothing was written; restart what uses it if that was meant"
            )

    def check_not_lost(self) -> None:
        """Check, where a model was not found, that this is because there is none, and not because nothing is there.

        Raises:
            RegistryUnavailable: There is no registry.
        """
        if self._must_exist and not self.exists():
            raise self._not_there()

    def _read(self, kind: type[T], key: str) -> T:
        """Return a stored document.

        Raises:
            ObjectMissing: There is none.
            InvalidRecord: It is damaged.
        """
        return decode(kind, self._store.get(key).data, source=key)

    def _create(self, key: str, value: BaseModel) -> str:
        """Store a document that must not be there yet, and return its tag."""
        return self._store.create(key, encode(value, key=key))

    def _replace(self, key: str, value: BaseModel, etag: str) -> str:
        """Store a document in the place of the one that has this tag, and return the new tag."""
        return self._store.replace(key, encode(value, key=key), etag=etag)

    def _has_models(self) -> bool:
        return next(self._store.children(keys.MODELS), None) is not None

    def _not_there(self) -> RegistryUnavailable:
        return RegistryUnavailable(f"there is no registry at {self.url}: {_HOW}")
