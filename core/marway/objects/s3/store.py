"""`ObjectStore` over S3 (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-requests.html)."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import heapq
import io
import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar, cast

from marway.errors import RegistryUnavailable
from marway.objects.base import PROBES, ObjectChanged, ObjectExists, ObjectMissing, Progress, StoredObject
from marway.objects.s3.client import Access, Clients, parse_url
from marway.objects.s3.reader import ObjectReader
from marway.objects.s3.retries import Found, conditional_write, patiently
from marway.objects.s3.upload import upload

__all__ = ["S3Store"]

T = TypeVar("T")

_READ_AHEAD_BYTES: Final = 1024 * 1024
_LOCK_WAIT_S: Final = 5.0


class S3Store:
    """An `ObjectStore` over a bucket, or the part of one below a prefix. Safe for threads; a fork gets its own client.

    Args:
        url: ``s3://bucket/prefix``.
        access: Keys and endpoint, in the place of those that the environment names.

    Raises:
        InvalidSettings: The URL, or an AWS variable, cannot be used.
    """

    parallel_reads = True

    def __init__(self, url: str, access: Access | None = None) -> None:
        self._bucket, self._prefix = parse_url(url)
        self._url = f"s3://{self._bucket}/{self._prefix}".rstrip("/")
        self._clients = Clients(self._url, access)
        self._locks: dict[str, threading.Lock] = {}

    @property
    def url(self) -> str:
        return self._url

    def get(self, key: str) -> StoredObject:
        def read() -> StoredObject:
            reply = self._client.get_object(**self._where(key))
            with reply["Body"] as body:
                return StoredObject(body.read(), reply["ETag"])

        return self._patiently(key, read)

    def size(self, key: str) -> int | None:
        return self._head(key).get("ContentLength")

    def tag(self, key: str) -> str | None:
        return self._head(key).get("ETag")

    def now(self) -> datetime:
        page = self._list(self._client.list_objects_v2, Prefix=self._prefix, MaxKeys=1)
        date = page.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        return datetime.now(timezone.utc) if date is None else parsedate_to_datetime(date)

    def written_at(self, key: str) -> datetime | None:
        return self._head(key).get("LastModified")

    def create(self, key: str, data: bytes) -> str:
        etag = self._put(key, data, None, IfNoneMatch="*")
        if etag is None:
            raise ObjectExists(key)
        return etag

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        new = self._put(key, data, etag, IfMatch=etag)
        if new is None:
            raise ObjectChanged(key)
        return new

    def create_file(self, key: str, path: Path, *, sha256: str, progress: Progress | None = None) -> None:
        if self.size(key) is not None:
            raise ObjectExists(key)
        upload(self._client, self._where(key), path, sha256=sha256, url=self._url, progress=progress)

    @contextlib.contextmanager
    def open(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[BinaryIO]:
        end = None if length is None else start + length
        with ObjectReader(self._client, self._where(key), self._url, start=start, end=end) as raw:
            yield cast("BinaryIO", io.BufferedReader(raw, _READ_AHEAD_BYTES))

    def keys(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        for page in self._pages(prefix, start_after):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(self._prefix)

    def sizes(self, prefix: str) -> Iterator[tuple[str, int]]:
        for page in self._pages(prefix, ""):
            for found in page.get("Contents", ()):
                yield found["Key"].removeprefix(self._prefix), int(found["Size"])

    def children(self, prefix: str, *, start_after: str = "") -> Iterator[str]:
        after = prefix + start_after if start_after else ""
        names = (
            found["Prefix"].removeprefix(self._prefix + prefix).rstrip("/")
            for page in self._pages(prefix, after, Delimiter="/")
            for found in page.get("CommonPrefixes", ())
        )
        yield from _in_name_order(name for name in names if name > start_after)

    def delete(self, key: str, *, etag: str | None = None) -> None:
        if etag is None:
            with contextlib.suppress(ObjectMissing):
                self._patiently(key, lambda: self._client.delete_object(**self._where(key)))
            return

        def send() -> None:
            self._client.delete_object(**self._where(key), IfMatch=etag)

        if not conditional_write(send, lambda: self._found(key, None, etag)[0], key=key, url=self._url):
            raise ObjectChanged(key)

    @contextlib.contextmanager
    def advisory_lock(self, key: str) -> Iterator[None]:
        lock = self._locks.setdefault(key, threading.Lock())
        taken = lock.acquire(timeout=_LOCK_WAIT_S)
        try:
            yield
        finally:
            if taken:
                lock.release()

    def sweep(self, *, older_than_s: float, dry_run: bool = False) -> tuple[str, ...]:
        limit = self.now() - timedelta(seconds=older_than_s)
        swept = []
        for page in self._pages(PROBES, ""):
            for found in page.get("Contents", ()):
                if found["LastModified"] <= limit:
                    key = found["Key"].removeprefix(self._prefix)
                    if not dry_run:
                        self.delete(key)
                    swept.append(key)
        for this in self._unfinished(limit):
            if not dry_run:
                self._abort(this)
            swept.append(f"{this['Key'].removeprefix(self._prefix)} (upload {this['UploadId']})")
        return tuple(sorted(swept))

    def _head(self, key: str) -> dict[str, Any]:
        """Return what the store says of an object: nothing where there is none."""
        head: dict[str, Any] = {}
        with contextlib.suppress(ObjectMissing):
            head = self._patiently(key, lambda: self._client.head_object(**self._where(key)))
        return head

    def _abort(self, this: dict[str, str]) -> None:
        with contextlib.suppress(ObjectMissing):
            self._patiently(this["Key"], lambda: self._client.abort_multipart_upload(**this))

    def _put(self, key: str, data: bytes, before: str | None, **condition: str) -> str | None:
        """Write on a condition; return the new tag, or None if the condition does not hold."""
        etag = ""

        def send() -> None:
            nonlocal etag
            reply = self._client.put_object(
                **self._where(key),
                Body=data,
                ContentType="application/json",
                ChecksumSHA256=base64.b64encode(hashlib.sha256(data).digest()).decode(),
                **condition,
            )
            etag = reply["ETag"]

        def look() -> Found:
            nonlocal etag
            found, etag = self._found(key, data, before)
            return found

        return etag if conditional_write(send, look, key=key, url=self._url) else None

    def _found(self, key: str, data: bytes | None, before: str | None) -> tuple[Found, str]:
        """Return what is stored, with its tag, to who writes data, or removes it, where ``before`` was, or nothing."""
        try:
            stored = self.get(key)
        except ObjectMissing:
            return Found.MINE if data is None else Found.BEFORE if before is None else Found.OTHER, ""
        if stored.data == data:
            return Found.MINE, stored.etag
        return Found.BEFORE if stored.etag == before else Found.OTHER, stored.etag

    def _pages(self, prefix: str, start_after: str, **more: str) -> Iterator[dict[str, Any]]:
        if start_after:
            more["StartAfter"] = self._prefix + start_after
        following = {"ContinuationToken": "NextContinuationToken"}
        return self._each_page(self._client.list_objects_v2, following, Prefix=self._prefix + prefix, **more)

    def _unfinished(self, limit: datetime) -> Iterator[dict[str, str]]:
        following = {"KeyMarker": "NextKeyMarker", "UploadIdMarker": "NextUploadIdMarker"}
        for page in self._each_page(self._client.list_multipart_uploads, following, Prefix=self._prefix):
            for found in page.get("Uploads", ()):
                if found["Initiated"] <= limit:
                    yield {"Bucket": self._bucket, "Key": found["Key"], "UploadId": found["UploadId"]}

    def _each_page(
        self, call: Callable[..., dict[str, Any]], following: Mapping[str, str], **arguments: str
    ) -> Iterator[dict[str, Any]]:
        """Yield a listing's pages; ``following`` has the arguments for the next, and how the last one calls them."""
        while True:
            page = self._list(call, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments |= {name: page[theirs] for name, theirs in following.items()}

    def _list(self, call: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
        try:
            return self._patiently(arguments["Prefix"], lambda: call(Bucket=self._bucket, **arguments))
        except ObjectMissing as exc:
            raise RegistryUnavailable(f"{self._url}: cannot be listed: not found") from exc

    def _patiently(self, key: str, call: Callable[[], T]) -> T:
        return patiently(call, key=key, url=self._url)

    @property
    def _client(self) -> Any:
        return self._clients.current()

    def _where(self, key: str) -> dict[str, str]:
        if any(part[:1] in ("", ".") for part in key.split("/")):
            raise ValueError(f"not an object key: {key!r}")
        return {"Bucket": self._bucket, "Key": self._prefix + key}


def _in_name_order(names: Iterator[str]) -> Iterator[str]:
    """Put names that a store lists as "name/" in order: it has "a-b/" before "a/", as '-' is less than '/'.

    A name is held back until the last of the names it might have to follow would have come.
    """
    held: list[str] = []
    for name in names:
        while held and name + "/" > _last_before(held[0]):
            yield heapq.heappop(held)
        heapq.heappush(held, name)
    while held:
        yield heapq.heappop(held)


def _last_before(name: str) -> str:
    """Return the greatest "prefix/" that sorts behind "name/" while the prefix sorts before the name, or "name/"."""
    for end in range(1, len(name)):
        if name[end] < "/":
            return name[:end] + "/"
    return ""
