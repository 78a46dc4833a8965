"""Streams an object, and goes on where it was when the connection is cut."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from marway.errors import RegistryUnavailable
from marway.objects.base import ObjectChanged
from marway.objects.s3.retries import Backoff, patiently

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.client import BaseClient

__all__ = ["ObjectReader"]

T = TypeVar("T")
_RANGE_NOT_SATISFIABLE = 416


class ObjectReader(io.RawIOBase):
    """One object's bytes, as a raw stream that can seek; each (re)connection asks for the rest of the same object.

    Args:
        client: Speaks to the store.
        where: Bucket and key, as boto3 takes them.
        url: The store's, for messages.
        start: First byte to read.
        end: First byte not to read; None means the object's end. With it the object is not asked for its size first:
            one request reads a part.

    Raises:
        ObjectMissing: There is no such object.
        RegistryUnavailable: It cannot be read; also while reading, after several attempts with no progress.
    """

    def __init__(
        self, client: BaseClient, where: dict[str, str], url: str, *, start: int = 0, end: int | None = None
    ) -> None:
        super().__init__()
        self._client: Any = client
        self._where = where
        self._url = url
        self._body: Any = None
        self._etag: str | None = None
        self._at = start
        if end is not None and end > start:  # an empty range cannot be asked for
            self._end = end
            self._patiently(self._connect, Backoff())
        else:
            found = self._patiently(lambda: self._client.head_object(**where), Backoff())
            self._end = min(int(found["ContentLength"]), start if end is not None else sys.maxsize)
            self._etag = found["ETag"]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._end}[whence]
        at = max(0, base + offset)
        if at != self._at:
            self._hang_up()
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._at >= self._end or not view:
            return 0
        backoff = Backoff()
        while True:
            data = self._patiently(lambda: self._read(len(view)), backoff)
            if data or self._at >= self._end:
                break
            self._hang_up()  # the body ended before the object does: as good as cut
            if not backoff.wait():
                raise RegistryUnavailable(f"{self._url}: {self._where['Key']} ends early, at byte {self._at}")
        view[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._hang_up()
        super().close()

    def _read(self, count: int) -> bytes:
        if self._body is None:
            self._connect()
        data: bytes = self._body.read(min(count, self._end - self._at)) if self._at < self._end else b""
        return data

    def _connect(self) -> None:
        """Ask for the rest; the first reply says which object it is, and where that ends if before the window does."""
        same = {"IfMatch": self._etag} if self._etag is not None else {}
        try:
            reply = self._client.get_object(**self._where, Range=f"bytes={self._at}-{self._end - 1}", **same)
        except ClientError as exc:
            if exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode") != _RANGE_NOT_SATISFIABLE:
                raise
            self._end = self._at  # the object ends before the window begins
            return
        self._body = reply["Body"]
        self._etag = reply["ETag"]
        total = str(reply.get("ContentRange", "")).rpartition("/")[2]
        if total.isdigit():
            self._end = min(self._end, int(total))
        elif self._at:
            raise RegistryUnavailable(f"{self._url}: the store sends whole objects where a part was asked for")

    def _patiently(self, call: Callable[[], T], backoff: Backoff) -> T:
        key = self._where["Key"]
        try:
            return patiently(call, key=key, url=self._url, backoff=backoff, failed=self._hang_up)
        except ObjectChanged as exc:  # bytes of two objects are never joined
            raise RegistryUnavailable(f"{self._url}: {key} was changed at the same moment") from exc

    def _hang_up(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with suppress(Exception):  # a broken connection may fail to close; it is gone either way
                body.close()
