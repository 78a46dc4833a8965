"""Of all that ask for a lease one has it at a time, whatever becomes of its holder."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from marway.errors import OutcomeUnknown, RegistryUnavailable
from marway.objects import DirectoryStore, StoredObject, open_store
from marway_gateway.duties.lease import Lease
from support.registry_fixtures import store_url

__all__ = ["store_url"]


class Clocked(DirectoryStore):
    """A directory whose clock is set, and which can be away, or do what it is told and not say so."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.at = 0.0
        self.away = False
        self.silent = False

    def monotonic(self) -> float:
        return self.at

    def now(self) -> datetime:
        return datetime.fromtimestamp(1e9 + self.at, UTC)

    def get(self, key: str) -> StoredObject:
        if self.away:
            raise RegistryUnavailable("away")
        return super().get(key)

    def create(self, key: str, data: bytes) -> str:
        return self._dated(key, super().create(key, data))

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        if self.away:
            raise RegistryUnavailable("away")
        return self._dated(key, super().replace(key, data, etag=etag))

    def _dated(self, key: str, tag: str) -> str:
        os.utime(self._path(key), (1e9 + self.at, 1e9 + self.at))
        if self.silent:
            raise OutcomeUnknown("no answer came")
        return tag


@pytest.fixture
def store(tmp_path: Path) -> Clocked:
    return Clocked(tmp_path)


def leases(store: Clocked) -> tuple[Lease, Lease]:
    return Lease(store, holder="a", clock=store.monotonic), Lease(store, holder="b", clock=store.monotonic)


def test_one_of_two_has_it_in_a_real_store(store_url: str) -> None:
    """Whichever store it is in: one has the lease, keeps it, and the other has it once it was given back."""
    store = open_store(store_url)
    first, second = Lease(store), Lease(store)
    assert first.renew()
    assert not second.renew()
    assert first.renew()
    assert first.left_s() > 20
    assert second.left_s() == 0
    first.release()
    first.release()
    assert first.left_s() == 0
    assert second.renew()
    assert not first.renew()


def test_of_many_at_once_one_has_it(tmp_path: Path) -> None:
    """Forty who ask at the same moment for a lease that is not there yet, or was given back: one has it."""
    many = [Lease(DirectoryStore(tmp_path)) for _ in range(40)]
    with ThreadPoolExecutor(8) as threads:
        for _ in range(2):
            held = [each for each, has in zip(many, threads.map(Lease.renew, many), strict=True) if has]
            assert len(held) == 1
            held[0].release()


def test_one_that_is_not_renewed_runs_out(store: Clocked) -> None:
    """A killed holder's lease is had by another once it ran out by the store's clock, and its holder stopped before."""
    first, second = leases(store)
    assert first.renew()
    store.at = 29.0
    assert not second.renew()
    assert first.left_s() == 0
    store.at = 31.0
    assert second.renew()
    assert not first.renew()


def test_a_store_that_is_away_leaves_it_until_it_runs_out(store: Clocked) -> None:
    """A holder that cannot renew it goes on until it runs out, and keeps it when the store answers in time."""
    first, second = leases(store)
    assert first.renew()
    store.at, store.away = 10.0, True
    with pytest.raises(RegistryUnavailable):
        first.renew()
    assert first.left_s() == pytest.approx(17.0)
    store.at, store.away = 20.0, False
    assert first.renew()
    store.at = 45.0
    assert not second.renew()


def test_a_write_without_an_answer_is_found_again(store: Clocked) -> None:
    """A holder whose renewal was done, and not told, has the lease with its next attempt."""
    first, second = leases(store)
    store.silent = True
    with pytest.raises(OutcomeUnknown):
        first.renew()
    assert first.left_s() == 0
    store.silent = False
    assert not second.renew()
    assert first.renew()


def test_a_damaged_one_runs_out_as_any(store: Clocked) -> None:
    """What cannot be read is waited for as long as a lease lasts, and then written over."""
    first, second = leases(store)
    assert first.renew()
    path = store._path("leases/duties.json")
    path.write_bytes(b"{")
    os.utime(path, (1e9, 1e9))
    assert not second.renew()
    store.at = 31.0
    assert second.renew()


def test_clocks_of_machines_do_not_matter(tmp_path: Path) -> None:
    """The wall clock of whoever asks is never read: a lease is as old as its store says."""
    store = DirectoryStore(tmp_path)
    first, second = Lease(store, lasts_s=30), Lease(store, lasts_s=0.001)
    assert first.renew()
    time.sleep(0.01)
    assert not second.renew()  # it lasts as long as its holder says
    os.utime(tmp_path / "leases/duties.json", (time.time() - timedelta(hours=1).total_seconds(),) * 2)
    assert second.renew()
