"""A whole registry into another place, object by object, with all histories: a backup, and its way back.

What is read is one moment's: the states of models, by which everything else is found, are read first, and whatever they
name is there by then and never changes. They are written last, so that a copy that is cut off has the states of before,
of which all is there, too; it goes on when it is asked for again. Objects that are gone where they were read stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import PurePosixPath
from typing import Final, Literal

from marway.errors import ArchiveCorrupt, InvalidInput, InvalidRecord, StateConflict
from marway.objects import ObjectChanged, ObjectExists, ObjectMissing, ObjectStore
from marway.records import ModelState
from marway.registry import Registry, keys
from marway.registry.encoding import decode, unsealed
from marway.storage.fetching import fetched

__all__ = ["WholeReport", "copy_whole"]

_LEFT: Final = ("events/pending/", "gc/", "leases/", "probes/")
"""What only means something where it is: who does what just now, and what was to be sent or deleted soon."""
_BY_DIGEST: Final = (keys.ARCHIVES, keys.BUNDLES, keys.GOLDEN, keys.WHEELS)
_FOR_EVER: Final = (
    *(*_BY_DIGEST, "checks/", keys.CONTRACTS, "events/date=", "events/dead/", "feedback/", "ids/"),
    *(keys.MODELS, "observations/", keys.PINS, "proofs/"),
)
"""What never changes once it is there; states are apart."""
_NOT_SEALED: Final = ("events/", "feedback/", "observations/", keys.GOLDEN)
_SMALL_BYTES: Final = 1024 * 1024
_THREADS: Final = 8
_AT_A_TIME: Final = 1000
Done = Literal["copied", "there"]


@dataclass(slots=True)
class WholeReport:
    """What was done.

    Attributes:
        copied: Objects that were written.
        bytes: Their bytes.
        there: Objects that were there already.
        damaged: Objects that were left out, with why: what is there of them, such as from a backup before, stays.
    """

    copied: int = 0
    bytes: int = 0
    there: int = 0
    damaged: dict[str, str] = field(default_factory=dict)


def copy_whole(
    source: ObjectStore, target: ObjectStore, *, progress: Callable[[WholeReport], None] = lambda _report: None
) -> WholeReport:
    """Copy all objects of a registry, or of a store of observations, that ``target`` does not have yet. Blocks.

    Args:
        source: Where they are; others may go on writing there.
        target: An empty place, or one that was copied to before from the same registry.
        progress: Told of what was done so far, after each object.

    Raises:
        InvalidInput: ``target`` holds another registry, or a newer state of a model, or is ``source``.
        RegistryUnavailable: One of them cannot be reached, or ``target`` cannot be written.
    """
    _check_same(source, target)
    report = WholeReport()
    states = dict(_states(source, report))
    _check_not_newer(source, target, states)
    with contextlib.suppress(ObjectMissing):  # first of all: by it, one that was cut off knows its own
        data = source.get(keys.IDENTITY).data
        _count(report, keys.IDENTITY, _put(target, keys.IDENTITY, data), len(data))
    first = {name: state.history[0].generation if state.history else state.generation + 1
             for name, (_, state) in states.items()}  # fmt: skip
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="copy") as threads:
        for part in _in_order(source.children("")):
            copy = partial(_copy, source, target, dict(target.sizes(f"{part}/")))
            wanted = (each for each in source.sizes(f"{part}/") if _is_wanted(each[0], first))
            while some := list(islice(wanted, _AT_A_TIME)):  # however many there are, few of them are in memory
                for key, done, size in threads.map(copy, some):
                    _count(report, key, done, size)
                    progress(report)
    for name, (data, _) in sorted(states.items()):
        key = keys.state_key(name)
        _count(report, key, _put(target, key, data), len(data))
        progress(report)
    return report


def _check_same(source: ObjectStore, target: ObjectStore) -> None:
    if source.url == target.url:
        raise InvalidInput(f"{source.url} cannot be copied to itself")
    mine, theirs = Registry(source).identity(), Registry(target).identity()
    if theirs is None and next(target.keys(""), None) is None:
        return
    if (None if mine is None else mine.id) != (None if theirs is None else theirs.id):
        raise InvalidInput(
            f"{target.url} is not empty and holds another registry than {source.url}: a whole registry goes to an "
            "empty place, or to where it was copied before; without --all, `marway copy` brings models into another one"
        )


def _check_not_newer(source: ObjectStore, target: ObjectStore, states: Mapping[str, tuple[bytes, ModelState]]) -> None:
    """Refuse to put an old state in the place of a newer one: changes that were acknowledged would be gone."""
    for name, (_, state) in states.items():
        key = keys.state_key(name)
        with contextlib.suppress(ObjectMissing, InvalidRecord):  # a damaged one is what a backup is for
            there = decode(ModelState, target.get(key).data, source=key)
            if there.generation > state.generation:
                raise InvalidInput(
                    f"{target.url} has a newer state of {name} (change {there.generation}) than {source.url} "
                    f"({state.generation}): going back would lose changes; if that is meant, restore to an empty place"
                )


def _states(source: ObjectStore, report: WholeReport) -> Iterator[tuple[str, tuple[bytes, ModelState]]]:
    for name in source.children(keys.MODELS):
        key = keys.state_key(name)
        try:
            data = source.get(key).data
            yield name, (data, decode(ModelState, data, source=key))
        except ObjectMissing:
            continue
        except InvalidRecord as exc:
            report.damaged[key] = exc.message


def _in_order(parts: Iterable[str]) -> list[str]:
    """Return the parts of a store so that what a version names is read after it: all of that is there by then."""
    contents = {each.partition("/")[0] for each in _BY_DIGEST}
    return sorted(parts, key=lambda part: (part in contents, f"{part}/" != keys.MODELS, part))


def _is_wanted(key: str, first: Mapping[str, int]) -> bool:
    """Return whether an object belongs to the states that were read; those themselves come last."""
    if key.startswith(_LEFT):
        return False
    parts = PurePosixPath(key).parts
    if parts[0] != "models" or len(parts) < 3:
        return True
    if parts[2] == "history":  # one from after the state was read holds what that holds itself
        return key < keys.chunk_key(parts[1], first.get(parts[1], 1))
    return parts[2] != "state.json"


def _copy(
    source: ObjectStore, target: ObjectStore, there: Mapping[str, int], listed: tuple[str, int]
) -> tuple[str, Done | str | None, int]:
    """Copy one object; return its key, what was done or why it was left out, and its size in bytes."""
    key, size = listed
    if key.startswith(_FOR_EVER) and there.get(key) == size:
        return key, "there", size
    try:
        if size > _SMALL_BYTES or key.startswith(_BY_DIGEST):
            sha256 = PurePosixPath(key).stem if key.startswith(_BY_DIGEST) else None
            with fetched(source, key, sha256=sha256) as found:
                if key in there:
                    target.delete(key)  # cut short, or of another content: what never changes has one size
                target.create_file(key, found.path, sha256=found.sha256)
            return key, "copied", size
        data = source.get(key).data
        if key.endswith(".json") and not key.startswith(_NOT_SEALED):
            unsealed(data, key=key)
        return key, _put(target, key, data), len(data)
    except ObjectMissing:
        return key, None, 0  # deleted since it was listed
    except ObjectExists:
        return key, "there", size
    except (ArchiveCorrupt, InvalidRecord) as exc:
        if source.size(key) is None:
            return key, None, 0
        return key, exc.message, size


def _put(target: ObjectStore, key: str, data: bytes) -> Done:
    """Write a small object, over what is there of it."""
    for _ in range(10):
        with contextlib.suppress(ObjectExists, ObjectChanged):
            try:
                stored = target.get(key)
            except ObjectMissing:
                target.create(key, data)
                return "copied"
            if stored.data == data:
                return "there"
            target.replace(key, data, etag=stored.etag)
            return "copied"
    raise StateConflict(f"{target.url}/{key} is changed by others all the time: who writes to a backup?")


def _count(report: WholeReport, key: str, done: Done | str | None, size: int) -> None:
    if done == "copied":
        report.copied += 1
        report.bytes += size
    elif done == "there":
        report.there += 1
    elif done is not None:
        report.damaged[key] = done
