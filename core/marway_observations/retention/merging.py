"""The files of one hour become few: a merged file says for which it stands, and only then those go.

So whoever reads between the two, or after a crash between them, counts nothing twice: readers leave out what a merged
file stands for (`marway_observations.reading`).
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from marway.objects import ObjectMissing, ObjectStore
from marway.registry.base import digest_of
from marway_observations.layout import MERGED, REPLACES
from marway_observations.parquet import merged_name, options, stands_for, with_all
from marway_observations.reading.files import damage
from marway_observations.retention.turn import Turn

__all__ = ["Hour", "Merged", "merge"]

_FILE_BYTES: Final = 128 * 1024 * 1024
"""Files are merged up to about this size, which engines like, and larger ones are left alone."""
_SORTED_BYTES: Final = 8 * 1024 * 1024
"""Feedback is sorted in memory, and unpacked it is a multiple of its size."""
_GROUP_BYTES: Final = 16 * 1024 * 1024
"""Of a row group in memory: readers hold one for each thread, and with bodies it has few rows."""
_GROUP_ROWS: Final = 100_000
_BATCH_ROWS: Final = 4096


@dataclass(frozen=True, slots=True)
class Hour:
    """The partition of one hour.

    Attributes:
        prefix: What its keys begin with.
        ends: When the hour ends.
        is_feedback: Whether its rows are feedback, sorted by prediction id, or observations.
    """

    prefix: str
    ends: datetime
    is_feedback: bool


@dataclass(slots=True)
class Merged:
    """What was done, or would be: keys of files."""

    merged: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


def merge(store: ObjectStore, hour: Hour, turn: Turn, *, dry_run: bool) -> Merged:
    """Merge the files of one hour, as far as they are whole; with two files there is something to do.

    Raises:
        RegistryUnavailable: The store cannot be read or changed.
    """
    done = Merged()
    keys = [key for key in store.keys(hour.prefix) if key.endswith(".parquet")]
    if len(keys) < 2:
        return done
    with tempfile.TemporaryDirectory(prefix="marway-merging-") as folder:
        here = Path(folder)
        replaced = {name for key in keys if MERGED in key for name in _replaces(store, key, here)}
        # First what an earlier one, which ended before its time, left of the files that its merged ones stand for.
        for key in [key for key in keys if _name(key) in replaced]:
            done.replaced.append(key)
            keys.remove(key)
            if not dry_run:
                store.delete(key)
        limit = _SORTED_BYTES if hour.is_feedback else _FILE_BYTES
        for group in _groups([(key, store.size(key) or 0) for key in sorted(keys)], limit):
            if not turn.renew():
                return done
            made = _merge_group(store, hour, group, here, done, dry_run=dry_run)
            if made is not None:
                done.merged.append(made)
    return done


def _groups(files: list[tuple[str, int]], limit: int) -> Iterator[list[str]]:
    """Yield keys of files, two at least, that are to become one."""
    group: list[str] = []
    size = 0
    for key, its_size in files:
        if its_size > limit // 2:
            continue
        if group and size + its_size > limit:
            if len(group) > 1:
                yield group
            group, size = [], 0
        group.append(key)
        size += its_size
    if len(group) > 1:
        yield group


def _merge_group(
    store: ObjectStore, hour: Hour, keys: list[str], here: Path, done: Merged, *, dry_run: bool
) -> str | None:
    """Make one file of several, and delete those; return its key, or None where fewer than two can be read."""
    sources: dict[str, Path] = {}
    schemas: list[pa.Schema] = []
    for key in keys:
        path = here / _name(key)
        try:
            _copy(store, key, path)
            schema = pq.read_schema(path).remove_metadata()
            pa.unify_schemas([*schemas, schema])
            schemas.append(schema)
            sources[key] = path
        except ObjectMissing:
            continue
        except (pa.ArrowException, OSError, ValueError):
            done.broken.append(key)
    if len(sources) < 2:
        return None
    stand_for = sorted({_name(key) for key in sources})
    target = here / "merged.parquet"
    try:
        _write(target, list(sources.values()), pa.unify_schemas(schemas), stand_for, is_sorted=hour.is_feedback)
    except (pa.ArrowException, OSError) as exc:
        if isinstance(exc, OSError) and not isinstance(exc, pa.ArrowException) and exc.errno is not None:
            raise  # this machine's disk
        done.broken += [key for key, path in sources.items() if damage(path) is not None]
        return None
    finally:
        for path in sources.values():
            path.unlink(missing_ok=True)
    made = hour.prefix + merged_name()
    done.replaced += sources
    if not dry_run:
        with target.open("rb") as file:
            digest = digest_of(file)
        store.create_file(made, target, sha256=digest)
        for key in sources:
            store.delete(key)
    target.unlink()
    return made


def _write(target: Path, sources: list[Path], schema: pa.Schema, stand_for: list[str], *, is_sorted: bool) -> None:
    with pq.ParquetWriter(target, schema, **options(schema)) as writer:
        writer.add_key_value_metadata({REPLACES.decode(): json.dumps(stand_for)})
        if is_sorted:
            tables = [with_all(pq.read_table(path, partitioning=None), schema) for path in sources]
            writer.write_table(pa.concat_tables(tables).sort_by("prediction_id"))
            return
        waiting: list[pa.Table] = []
        for table in _tables(sources, schema):
            waiting.append(table)
            if (
                sum(len(each) for each in waiting) >= _GROUP_ROWS
                or sum(each.nbytes for each in waiting) >= _GROUP_BYTES
            ):
                writer.write_table(pa.concat_tables(waiting))
                waiting = []
        if waiting:
            writer.write_table(pa.concat_tables(waiting))


def _tables(sources: list[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    for path in sources:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                yield with_all(batch, schema)


def _replaces(store: ObjectStore, key: str, here: Path) -> list[str]:
    """Return the names of the files that a merged one stands for."""
    path = here / "looked-at.parquet"
    try:
        _copy(store, key, path)
        return stands_for(path)
    except (ObjectMissing, OSError):
        return []
    finally:
        path.unlink(missing_ok=True)


def _copy(store: ObjectStore, key: str, path: Path) -> None:
    with store.open(key) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target)


def _name(key: str) -> str:
    return key.rpartition("/")[2]
