"""Reads everything that is stored and says what is damaged or missing, and how it is mended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Final

from marway.errors import InvalidRecord, RegistryUnavailable
from marway.objects import ObjectMissing
from marway.protection.contracts import Contract
from marway.records import GcMark, HistoryChunk, ModelState, Pointer, Proof, VersionRecord
from marway.registry import history, keys
from marway.registry.base import digest_of
from marway.registry.graphs import Pin
from marway.registry.reading import Reading

__all__ = ["Damage", "Scrubbing"]

_THREADS: Final = 8
_BACKUP: Final = "put it back from a backup or from the bucket's object versions"
_AGAIN: Final = "publish the version again, with the same bytes"
_GOLDEN: Final = f"{_AGAIN} and golden answers"
_WHEEL: Final = f"{_AGAIN}, where its requirements still come to that wheel; else as a new version"
_RECORD: Final = f"{_BACKUP}; without one, publish the model as a new version and delete this object"
_MENDED: Final = {keys.ARCHIVES: _AGAIN, keys.BUNDLES: _AGAIN, keys.GOLDEN: _GOLDEN, keys.WHEELS: _WHEEL}
_CHECK: Final = "delete it, and check the version again, as with marway replay"
_PROOF: Final = "delete it; the next release through a gateway proves the version again"
_CONTRACT: Final = "have its consumer add the contract again (`marway contract add`)"
_PIN: Final = "delete it, then publish the graph again, with the same document"
_MARK: Final = "delete it: gc makes it again"


@dataclass(frozen=True, slots=True)
class Damage:
    """One object that is not as it should be.

    Attributes:
        key: Which.
        what: What is wrong with it.
        mend: What to do about it.
    """

    key: str
    what: str
    mend: str


class Scrubbing(Reading):
    """Looks through the whole registry."""

    def scrub(self) -> Iterator[Damage]:
        """Read every object once and yield what is wrong, in the order of keys within each kind; nothing is changed.

        Raises:
            RegistryUnavailable: There is no registry, or it cannot be read.
        """
        self.check_not_lost()
        yield from self._each((keys.IDENTITY,), lambda _key: self.identity(), _BACKUP)
        for prefix, mend in _MENDED.items():
            yield from self._each(self._store.keys(prefix), self._bytes, mend)
        for name in self.models():
            yield from self._model(name)
        yield from self._each(self._store.keys("ids/"), self._pointer_of, f"delete it, then {_AGAIN}")
        yield from self._each(self._store.keys("proofs/"), self._proof, _PROOF)
        yield from self._each(self._store.keys("checks/"), self._proof, _CHECK)
        contracts = self._store.keys(keys.CONTRACTS)
        yield from self._each(contracts, lambda key: self._read(Contract, key), _CONTRACT)
        yield from self._each(self._store.keys(keys.PINS), lambda key: self._read(Pin, key), _PIN)
        yield from self._each(self._store.keys(keys.GC), lambda key: self._read(GcMark, key), _MARK)

    def _each(self, found: Iterable[str], read: Callable[[str], object], mend: str) -> Iterator[Damage]:
        """Read objects; ``read`` raises `InvalidRecord` for a damaged one, or returns its damage."""

        def look(key: str) -> Damage | None:
            try:
                read_as = read(key)
            except InvalidRecord as exc:
                return Damage(key, exc.message, mend)
            except ObjectMissing:
                return None  # deleted since it was listed
            return read_as if isinstance(read_as, Damage) else None

        with ThreadPoolExecutor(_THREADS, thread_name_prefix="scrub") as threads:
            yield from (damage for damage in threads.map(look, found) if damage is not None)

    def _bytes(self, key: str) -> None:
        with self._store.open(key) as handle:
            found = digest_of(handle)
        if PurePosixPath(key).stem != found:
            raise InvalidRecord(f"its bytes have sha256 {found}")

    def _model(self, name: str) -> Iterator[Damage]:
        state: ModelState | None = None
        try:
            state = self.state(name)
        except (InvalidRecord, RegistryUnavailable) as exc:
            yield Damage(keys.state_key(name), exc.message, _BACKUP)
        records: dict[str, VersionRecord | None] = {}
        for version in self.versions(name):
            key = keys.record_key(name, version)
            try:
                records[version] = self.record(name, version)
            except InvalidRecord as exc:
                records[version] = None
                yield Damage(key, exc.message, _RECORD)
        chunks = list(self._store.keys(keys.chunks_prefix(name)))
        yield from self._each(chunks, lambda key: self._read(HistoryChunk, key), _BACKUP)
        if state is not None:
            yield from self._damaged_contents(name, state, records, chunks)
        dead = set() if state is None else set(state.tombstones)
        for version, record in records.items():
            if record is None or version in dead:
                continue
            for key in keys.objects_of(record):
                if self._store.size(key) is None:
                    mend = next(each for kind, each in _MENDED.items() if key.startswith(kind))
                    yield Damage(key, f"missing: {name} {version} needs it", mend)

    def _damaged_contents(
        self, name: str, state: ModelState, records: dict[str, VersionRecord | None], chunks: list[str]
    ) -> Iterator[Damage]:
        """Hold a state against what it tells of."""
        key = keys.state_key(name)
        for label, version in sorted(state.labels.items()):
            if version not in records:
                yield Damage(
                    key, f"its label {label} points at {version}, which is not there", f"{_BACKUP}, or move it"
                )
        for contract, ref in sorted(state.contracts.items()):
            at = keys.contract_object_key(name, ref.id)
            if self._store.size(at) is None:
                yield Damage(at, f"missing: it is contract {contract} of {name}", _CONTRACT)
        oldest = state.history[0].generation if state.history else state.generation + 1
        if chunks and chunks[-1] >= keys.chunk_key(name, oldest):
            yield Damage(
                key, f"it is of generation {state.generation}, and {chunks[-1]} is newer: it was put back", _BACKUP
            )
            return
        try:
            found = [entry.generation for entry in history.newest_first(self._store, name, state)]
        except InvalidRecord:
            return  # a chunk, which was told above
        if found != list(range(state.generation, 0, -1)):
            yield Damage(key, f"of its {state.generation} changes the history tells {len(found)}", _BACKUP)

    def _pointer_of(self, key: str) -> Damage | None:
        pointer = self._read(Pointer, key)
        if _stands_for(pointer, PurePosixPath(key).stem):
            return None
        what = "another name" if pointer.kind == "name" else "another id"
        return Damage(key, f"it is what {what} stands for", _BACKUP)

    def _proof(self, key: str) -> None:
        proof = self._read(Proof, key)
        prefix = keys.proofs_prefix if proof.is_load else keys.checks_prefix
        if not key.startswith(prefix(proof.archive_sha256)):
            raise InvalidRecord(f"it proves another archive, {proof.archive_sha256[:12]}…")


def _stands_for(pointer: Pointer, name: str) -> bool:
    """Return whether a pointer may be stored under a name; one of before, for an id, does not say under which."""
    if pointer.kind == "name":
        return name == pointer.model.lower()
    return pointer.id is None or name in (pointer.id, pointer.id.lower())
