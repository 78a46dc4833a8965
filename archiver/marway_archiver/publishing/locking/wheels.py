"""The wheel of a package that fits a pod, and its bytes."""

from __future__ import annotations

import hashlib
import shutil
import ssl
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx
from packaging import tags
from packaging.utils import parse_wheel_filename

from marway.environments.lock import Target, this_target
from marway.errors import InvalidArchive, Unavailable
from marway_archiver.publishing.locking.uv import Candidate, index_urls

__all__ = ["best", "fetch"]

_GLIBC_MINOR: Final = 28
_OLDEST_MINOR: Final = 5
_LEGACY: Final = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
_TIMEOUT_S: Final = 60.0
_STREAMS: Final = 4
_PIECE_BYTES: Final = 1024 * 1024


def best(candidates: Sequence[Candidate], target: Target) -> Candidate:
    """Return the wheel that a Python on a pod would take.

    Raises:
        InvalidArchive: None fits.
    """
    ranks = {tag: rank for rank, tag in enumerate(_tags(target))}
    ranked = [
        (min(fitting), number)
        for number, candidate in enumerate(candidates)
        if (fitting := [ranks[tag] for tag in parse_wheel_filename(candidate.filename)[3] if tag in ranks])
    ]
    if not ranked:
        name = candidates[0].filename.partition("-")[0]
        raise InvalidArchive(f"the archive's requirements cannot be locked: no wheel of {name} is for {target}")
    return candidates[min(ranked)[1]]


def fetch(
    chosen: Sequence[Candidate], directory: Path, environment: Mapping[str, str]
) -> dict[str, tuple[str, int, Path]]:
    """Return, for each wheel by its address, digest, size in bytes and file in ``directory``.

    Names and passwords of indexes, and the authorities to trust, are those of ``environment`` (`uv_environment`).

    Raises:
        InvalidArchive: One has another digest than the index says.
        Unavailable: One cannot be had.
    """
    trusted = environment.get("SSL_CERT_FILE")
    verify = ssl.create_default_context(cafile=trusted) if trusted else True
    with (
        httpx.Client(follow_redirects=True, timeout=_TIMEOUT_S, verify=verify) as client,
        ThreadPoolExecutor(_STREAMS) as threads,
    ):
        known = {urlsplit(url).hostname: url for url in index_urls(environment) if "@" in urlsplit(url).netloc}

        def one(candidate: Candidate) -> tuple[str, int, Path]:
            path = directory / candidate.filename
            sha256 = _copied(candidate.url, path, client, known)
            if candidate.sha256 not in (None, sha256):
                raise InvalidArchive(f"{candidate.url} has other bytes (sha256 {sha256[:12]}…) than its index says")
            return sha256, path.stat().st_size, path

        return dict(zip((each.url for each in chosen), threads.map(one, chosen), strict=True))


def _copied(url: str, path: Path, client: httpx.Client, known: dict[str | None, str]) -> str:
    parts = urlsplit(url)
    if parts.scheme == "file":
        shutil.copyfile(unquote(parts.path), path)
        with path.open("rb") as file:
            return _digest(iter(lambda: file.read(_PIECE_BYTES), b""), None)
    if parts.hostname in known and "@" not in parts.netloc:
        secret = urlsplit(known[parts.hostname]).netloc.rpartition("@")[0]
        url = parts._replace(netloc=f"{secret}@{parts.netloc}").geturl()
    shown = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    try:
        with client.stream("GET", url) as answer, path.open("wb") as file:
            if not answer.is_success:
                raise Unavailable(f"{shown} cannot be had: {answer.status_code} {answer.reason_phrase}")
            return _digest(answer.iter_bytes(_PIECE_BYTES), file.write)
    except httpx.HTTPError as exc:
        raise Unavailable(f"{shown} cannot be had: {str(exc) or type(exc).__name__}") from exc


def _digest(pieces: Iterable[bytes], write: Callable[[bytes], object] | None) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
        if write is not None:
            write(piece)
    return digest.hexdigest()


def _tags(target: Target) -> Iterator[tags.Tag]:
    """Yield what wheels for a target may say, the best first."""
    system, _, machine = target.platform.partition("-")
    if system != "linux":
        if target != this_target():
            raise InvalidArchive(f"requirements can be locked for {target} only on such a machine: publish from one")
        yield from tags.sys_tags()
        return
    platforms = []
    for minor in range(_GLIBC_MINOR, _OLDEST_MINOR - 1, -1):
        platforms.append(f"manylinux_2_{minor}_{machine}")
        if minor in _LEGACY:
            platforms.append(f"{_LEGACY[minor]}_{machine}")
    version = tuple(map(int, target.python.split(".")))
    yield from tags.cpython_tags(version, platforms=platforms)
    yield from tags.compatible_tags(version, f"cp{version[0]}{version[1]}", platforms)
