"""Which files of observations or feedback there are for a time, and where to read them.

Files are immutable, so those of S3 are copied once and read from the copies. A merged file says in its metadata which
files of its partition it stands for: while those are still there they are not read, so nothing counts twice.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq

from marway.errors import InvalidInput, clip
from marway.objects import ObjectMissing, ObjectStore
from marway_observations.layout import FEEDBACK, MERGED, OBSERVATIONS, observations_prefix
from marway_observations.parquet import stands_for, with_all
from marway_observations.reading.limits import LIMITS

__all__ = ["LeftOut", "LocalFile", "LocalFiles", "batches", "damage", "hour_before"]

_PARTITION: Final = re.compile(r"date=(\d{4}-\d{2}-\d{2})/hour=(\d{2})/[^/]+\.parquet\Z")
_SUFFIX: Final = ".parquet"
_DOWNLOADS: Final = 16  # at once: S3 answers each after some 20 ms, whatever its size
_BATCH_ROWS: Final = 8192
_BATCH_BYTES: Final = 8 * 1024**2


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not read, and why."""

    key: str
    why: str


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the store, and where it is on this machine."""

    key: str
    path: Path

    @property
    def model(self) -> str:
        """The model whose observations it has."""
        return self.key.split("/")[1].removeprefix("model=")


class LocalFiles:
    """Finds files in a store and has them on this machine.

    Args:
        store: Where observations and feedback are.
        copies: Where copies of files in S3 are kept for the next time; None keeps them until `close`. A directory's
            files are read in place.
        copied_max_bytes: How much copies may take, those of earlier readers that are kept among them; None means the
            process's limit.
    """

    def __init__(self, store: ObjectStore, *, copies: Path | None = None, copied_max_bytes: int | None = None) -> None:
        self._store = store
        parts = urlsplit(store.url)
        self._root = Path(unquote(parts.path)) if parts.scheme == "file" else None
        self._temporary: Path | None = None
        self._copies = copies
        self._copied_max_bytes = LIMITS.disk_bytes if copied_max_bytes is None else copied_max_bytes
        kept = copies.rglob(f"*{_SUFFIX}") if copies is not None else ()
        self._copied_bytes = sum(path.stat().st_size for path in kept)

    def observations(self, model: str | None, since: datetime | None, until: datetime | None) -> list[str]:
        """Return the keys of a model's files, or of all models', for the hours of a time; in order."""
        models = [model] if model is not None else [name[6:] for name in self._store.children(OBSERVATIONS)]
        return [key for each in models for key in self._keys(observations_prefix(each), since, until)]

    def feedback(self, since: datetime | None, until: datetime | None) -> list[str]:
        """Return the keys of the feedback that came in the hours of a time, in order."""
        return list(self._keys(FEEDBACK, since, until))

    def local(self, keys: list[str]) -> tuple[list[LocalFile], list[LeftOut]]:
        """Return where the files are here, without those that a merged one stands for, and what cannot be read.

        A file that is gone by now is in neither: `marway gc` merges and deletes.

        Raises:
            RegistryUnavailable: The store cannot be read.
            InvalidInput: It would be more than may be copied.
        """
        merged = [key for key in keys if key.rpartition("/")[2].startswith(MERGED)]
        left_out: list[LeftOut] = []
        replaced: set[str] = set()
        for file in self._fetch(merged):
            folder = file.key.rpartition("/")[0]
            # One that is broken is found below, as any other.
            replaced.update(f"{folder}/{name}" for name in stands_for(file.path))
        found = []
        for file in self._fetch([key for key in keys if key not in replaced]):
            try:
                why = _half(file.path)
            except FileNotFoundError:
                continue
            if why is None:
                found.append(file)
            else:
                left_out.append(LeftOut(file.key, why))
        return found, left_out

    def close(self) -> None:
        """Remove the copies that nobody keeps."""
        if self._temporary is not None:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary = None

    def _keys(self, prefix: str, since: datetime | None, until: datetime | None) -> Iterator[str]:
        first, last = _hour(since), _hour(until)
        for day in self._store.children(prefix):
            date = day.removeprefix("date=")
            if (first and date < first[:10]) or (last and date > last[:10]):
                continue
            for key in sorted(self._store.keys(f"{prefix}{day}/")):
                found = _PARTITION.search(key)
                if found is None:
                    continue  # somebody else's: a Spark job leaves _SUCCESS
                hour = f"{found[1]}/{found[2]}"
                if (first is None or hour >= first) and (last is None or hour <= last):
                    yield key

    def _fetch(self, keys: Iterable[str]) -> list[LocalFile]:
        if self._root is not None:
            return [LocalFile(key, self._root / key) for key in keys]
        if self._copies is None and self._temporary is None:
            self._temporary = Path(tempfile.mkdtemp(prefix="marway-observations-"))
        with ThreadPoolExecutor(_DOWNLOADS, thread_name_prefix="marway-observations") as pool:
            return [file for file in pool.map(self._copy, keys) if file is not None]

    def _copy(self, key: str) -> LocalFile | None:
        path = (self._copies or self._temporary or Path()) / key
        if path.exists():
            return LocalFile(key, path)
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            with self._store.open(key) as source, tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as target:
                try:
                    shutil.copyfileobj(source, target)
                    target.close()
                    Path(target.name).replace(path)
                except BaseException:
                    Path(target.name).unlink(missing_ok=True)
                    raise
        except ObjectMissing:
            return None
        self._copied_bytes += path.stat().st_size
        if self._copied_bytes > self._copied_max_bytes:
            path.unlink(missing_ok=True)
            raise InvalidInput(
                "these observations, with those that were copied before, are more than "
                f"{self._copied_max_bytes / 1024**3:.1f} GiB to copy from "
                f"{clip(self._store.url, 200)}: ask for a shorter time, or for one model"
            )
        return LocalFile(key, path)


def damage(path: Path) -> str | None:
    """Return why a Parquet file cannot be read to its end, or None when it can. It reads all of it."""
    try:
        with pq.ParquetFile(path) as file:
            for _ in file.iter_batches(batch_size=8192):
                pass
    except FileNotFoundError:
        return None
    except (OSError, ValueError, pa.ArrowException) as exc:
        return clip(" ".join(str(exc).split()), 200)
    return None


def batches(file: LocalFile, columns: pa.Schema) -> Iterator[pa.Table]:
    """Yield the rows of a file, so many at a time that bodies take some megabytes, with exactly these columns."""
    with pq.ParquetFile(file.path) as source:
        there = [name for name in columns.names if name in source.schema_arrow.names]
        for place in range(source.num_row_groups):
            group = source.metadata.row_group(place)
            rows = max(1, min(_BATCH_ROWS, group.num_rows * _BATCH_BYTES // max(group.total_byte_size, 1)))
            for batch in source.iter_batches(rows, row_groups=[place], columns=there):
                yield with_all(batch, columns)


def _half(path: Path) -> str | None:
    """Return why a file is no whole Parquet file, by its first and last bytes, which tell one that was cut.

    Raises:
        FileNotFoundError: It is gone.
    """
    try:
        with path.open("rb") as file:
            head = file.read(4)
            size = file.seek(0, os.SEEK_END)
            file.seek(max(size - 8, 0))
            tail = file.read(8)
    except FileNotFoundError:
        raise
    except OSError as exc:
        return exc.strerror or str(exc)
    if head != b"PAR1" or tail[4:] != b"PAR1" or int.from_bytes(tail[:4], "little") > size - 12:
        return "no whole Parquet file"
    return None


def _hour(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(timezone.utc).strftime("%Y-%m-%d/%H")


def hour_before(at: datetime | None) -> datetime | None:
    """Return an hour earlier: the clocks of two gateways may differ by a little, and an hour is what files are by."""
    return None if at is None else at - timedelta(hours=1)
