"""Uploads a file in parts: read once, hashed on the way, flat in memory, visible only as a whole.

Parts are sent by a few threads and checked by the store (SHA-256 each, where it can); the condition that the object
must not exist yet is on the completion, which makes it visible. On any failure the upload is aborted.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from marway.errors import ArchiveCorrupt
from marway.objects.base import ObjectExists, ObjectMissing, Progress
from marway.objects.s3.failures import VENDOR_ERRORS
from marway.objects.s3.retries import patiently
from marway.objects.s3.settle import Found, settle

if TYPE_CHECKING:
    from botocore.client import BaseClient

__all__ = ["PART_BYTES", "SHA256_METADATA", "upload"]

PART_BYTES: Final = 8 * 1024 * 1024
"""Size of a part, more only where a file would have too many; what is smaller goes in one request."""
SHA256_METADATA: Final = "sha256"
"""Name under which the object itself says its digest: an ETag is none, and a multipart checksum is composite."""
_PARTS_MAX: Final = 10_000
_THREADS: Final = 4


def upload(
    client: BaseClient, where: dict[str, str], path: Path, *, sha256: str, url: str, progress: Progress | None
) -> None:
    """Store a file's bytes under a key that must be free.

    Raises:
        ObjectExists: It is not; what is there has other bytes or was there before.
        ArchiveCorrupt: The bytes read have another digest than ``sha256``; nothing was stored.
        RegistryUnavailable, OutcomeUnknown: As every write.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        job = _Upload(client, where, url, _Source(file, path, sha256), size, progress)
        if size <= PART_BYTES:
            job.in_one()
        else:
            job.in_parts()


class _Source:
    """A file read forward once; knows its digest at the end."""

    def __init__(self, file: BinaryIO, path: Path, sha256: str) -> None:
        self._file = file
        self._path = path
        self.sha256 = sha256
        self._digest = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self._file.read(count)
        self._digest.update(data)
        return data

    def check(self) -> None:
        if self._digest.hexdigest() != self.sha256:
            raise ArchiveCorrupt(
                f"{self._path}: its bytes have sha256 {self._digest.hexdigest()}, not {self.sha256}: "
                "the file changed while it was being read; try again"
            )


class _Upload:
    def __init__(
        self,
        client: BaseClient,
        where: dict[str, str],
        url: str,
        source: _Source,
        size: int,
        progress: Progress | None,
    ) -> None:
        self._client: Any = client
        self._where = where
        self._url = url
        self._source = source
        self._size = size
        self._progress = progress
        self._done = 0
        self._counting = threading.Lock()

    def in_one(self) -> None:
        data = self._source.read(self._size + 1)
        self._source.check()
        self._settle(
            lambda: self._client.put_object(
                **self._where,
                Body=data,
                IfNoneMatch="*",
                ChecksumSHA256=_b64(bytes.fromhex(self._source.sha256)),
                Metadata={SHA256_METADATA: self._source.sha256},
            )
        )
        self._count(len(data))

    def in_parts(self) -> None:
        started = self._patiently(
            lambda: self._client.create_multipart_upload(
                **self._where, ChecksumAlgorithm="SHA256", Metadata={SHA256_METADATA: self._source.sha256}
            )
        )
        this = {**self._where, "UploadId": started["UploadId"]}
        completed = False

        def complete() -> None:
            nonlocal completed
            self._client.complete_multipart_upload(**this, IfNoneMatch="*", MultipartUpload={"Parts": parts})
            completed = True

        try:
            parts = self._send_parts(this)
            self._source.check()
            self._settle(complete)
        finally:
            if not completed:
                # Also when another's upload of the same bytes came first. Failing to abort leaves parts that nobody
                # sees; gc aborts them after a day.
                with suppress(*VENDOR_ERRORS):
                    self._client.abort_multipart_upload(**this)

    def _send_parts(self, this: dict[str, str]) -> list[dict[str, Any]]:
        part_bytes = max(PART_BYTES, -(-self._size // _PARTS_MAX))
        parts: list[dict[str, Any]] = []
        under_way: set[Future[dict[str, Any]]] = set()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="upload") as threads:
            try:
                number = 0
                while data := self._source.read(part_bytes):
                    number += 1
                    under_way.add(threads.submit(self._send_part, this, number, data))
                    del data  # or this thread would hold one part more than the bound
                    if len(under_way) >= _THREADS:
                        done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
                        parts.extend(each.result() for each in done)
                parts.extend(each.result() for each in under_way)
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        return sorted(parts, key=lambda part: int(part["PartNumber"]))

    def _send_part(self, this: dict[str, str], number: int, data: bytes) -> dict[str, Any]:
        checksum = _b64(hashlib.sha256(data).digest())
        # A part may be sent twice: the later one takes the place of the earlier, and they are equal.
        reply = self._patiently(
            lambda: self._client.upload_part(**this, PartNumber=number, Body=data, ChecksumSHA256=checksum)
        )
        self._count(len(data))
        return {"PartNumber": number, "ETag": reply["ETag"], "ChecksumSHA256": checksum}

    def _settle(self, send: Callable[[], object]) -> None:
        # The key names the bytes: whoever stored them, they are what was to be stored.
        if not settle(send, self._look, key=self._where["Key"], url=self._url):
            raise ObjectExists(self._where["Key"])

    def _look(self) -> Found:
        try:
            found = self._patiently(lambda: self._client.head_object(**self._where))
        except ObjectMissing:
            return Found.BEFORE
        same = found["ContentLength"] == self._size and found["Metadata"].get(SHA256_METADATA) == self._source.sha256
        return Found.MINE if same else Found.OTHER

    def _patiently(self, call: Callable[[], Any]) -> Any:
        return patiently(call, url=self._url, key=self._where["Key"])

    def _count(self, done: int) -> None:
        if self._progress is not None:
            with self._counting:
                self._done += done
                self._progress(self._done, self._size)


def _b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
