"""Streams an object, and goes on where it was when the connection is cut."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import IncompleteReadError

from marway.errors import RegistryUnavailable
from marway.objects.base import ObjectMissing
from marway.objects.s3.backoff import Backoff
from marway.objects.s3.failures import VENDOR_ERRORS, Kind, explain

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.client import BaseClient

__all__ = ["ObjectReader"]


class ObjectReader(io.RawIOBase):
    """One object's bytes, as a raw stream that can seek; each (re)connection asks for the rest of the same object.

    Args:
        client: Speaks to the store.
        where: Bucket and key, as boto3 takes them.
        url: The store's, for messages.
        start: First byte to read.

    Raises:
        ObjectMissing: There is no such object.
        RegistryUnavailable: It cannot be read; also while reading, after several attempts with no progress.
    """

    def __init__(self, client: BaseClient, where: dict[str, str], url: str, *, start: int = 0) -> None:
        super().__init__()
        self._client: Any = client
        self._where = where
        self._url = url
        self._body: Any = None
        found = self._patiently(lambda: self._client.head_object(**where), Backoff())
        self._size: int = found["ContentLength"]
        self._etag: str = found["ETag"]
        self._at = start

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        at = max(0, base + offset)
        if at != self._at:
            self._hang_up()
        self._at = at
        return at

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        if self._at >= self._size or not view:
            return 0
        backoff = Backoff()
        while True:
            data = self._patiently(lambda: self._read(len(view)), backoff)
            if data:
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
            reply = self._client.get_object(**self._where, Range=f"bytes={self._at}-", IfMatch=self._etag)
            self._body = reply["Body"]
        data: bytes = self._body.read(count)
        return data

    def _patiently(self, call: Callable[[], Any], backoff: Backoff) -> Any:
        while True:
            try:
                return call()
            except IncompleteReadError as exc:  # noqa: PERF203 - each attempt is what may fail
                self._hang_up()
                if not backoff.wait():
                    raise RegistryUnavailable(f"{self._url}: {self._where['Key']} is cut off: {exc}") from exc
            except VENDOR_ERRORS as exc:
                self._hang_up()
                failure = explain(exc, self._url)
                if failure.kind is Kind.MISSING:
                    raise ObjectMissing(self._where["Key"]) from exc
                if not failure.may_pass or not backoff.wait():
                    raise failure.error from exc

    def _hang_up(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            with suppress(Exception):  # a broken connection may fail to close; it is gone either way
                body.close()
