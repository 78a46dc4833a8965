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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marway.objects.base import ObjectExists, ObjectMissing, Progress
from marway.objects.files import CheckedFile
from marway.objects.s3.failures import VENDOR_ERRORS
from marway.objects.s3.retries import Found, conditional_write, patiently

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
        job = _Upload(client, where, url, CheckedFile(file, path, sha256), size, progress)
        if size <= PART_BYTES:
            job.in_one()
        else:
            job.in_parts()


@dataclass(slots=True)
class _Upload:
    client: Any
    where: dict[str, str]
    url: str
    source: CheckedFile
    size: int
    progress: Progress | None
    done: int = 0
    counting: threading.Lock = field(default_factory=threading.Lock)

    def in_one(self) -> None:
        data = self.source.read(self.size + 1)
        self.source.check()
        self._write(
            lambda: self.client.put_object(
                **self.where,
                Body=data,
                IfNoneMatch="*",
                ChecksumSHA256=_b64(bytes.fromhex(self.source.sha256)),
                Metadata={SHA256_METADATA: self.source.sha256},
            )
        )
        self._count(len(data))

    def in_parts(self) -> None:
        started = self._patiently(
            lambda: self.client.create_multipart_upload(
                **self.where, ChecksumAlgorithm="SHA256", Metadata={SHA256_METADATA: self.source.sha256}
            )
        )
        this = {**self.where, "UploadId": started["UploadId"]}
        completed = False

        def complete() -> None:
            nonlocal completed
            self.client.complete_multipart_upload(**this, IfNoneMatch="*", MultipartUpload={"Parts": parts})
            completed = True

        try:
            parts = self._send_parts(this)
            self.source.check()
            self._write(complete)
        finally:
            if not completed:
                # Also when another's upload of the same bytes came first. Failing to abort leaves parts that nobody
                # sees; gc aborts them after a day.
                with suppress(*VENDOR_ERRORS):
                    self.client.abort_multipart_upload(**this)

    def _send_parts(self, this: dict[str, str]) -> list[dict[str, Any]]:
        part_bytes = max(PART_BYTES, -(-self.size // _PARTS_MAX))
        parts: list[dict[str, Any]] = []
        under_way: set[Future[dict[str, Any]]] = set()
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="upload") as threads:
            try:
                number = 0
                while data := self.source.read(part_bytes):
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
            lambda: self.client.upload_part(**this, PartNumber=number, Body=data, ChecksumSHA256=checksum)
        )
        self._count(len(data))
        return {"PartNumber": number, "ETag": reply["ETag"], "ChecksumSHA256": checksum}

    def _write(self, send: Callable[[], object]) -> None:
        # The key names the bytes: whoever stored them, they are what was to be stored.
        if not conditional_write(send, self._look, key=self.where["Key"], url=self.url):
            raise ObjectExists(self.where["Key"])

    def _look(self) -> Found:
        try:
            found = self._patiently(lambda: self.client.head_object(**self.where))
        except ObjectMissing:
            return Found.BEFORE
        same = found["ContentLength"] == self.size and found["Metadata"].get(SHA256_METADATA) == self.source.sha256
        return Found.MINE if same else Found.OTHER

    def _patiently(self, call: Callable[[], Any]) -> Any:
        return patiently(call, url=self.url, key=self.where["Key"])

    def _count(self, done: int) -> None:
        if self.progress is not None:
            with self.counting:
                self.done += done
                self.progress(self.done, self.size)


def _b64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()
