"""How a worker reads what TorchServe's front end sends it: with few system calls, and large values copied once.

TorchServe's own reader asks the kernel for each field apart, and grows a large value piece by piece. Here small fields
come from one buffer and a large value goes where it stays; the values of an envelope (`marway.wire.envelope`) each into
a `bytearray` of its own, which is what the handler is given. All else of the protocol is TorchServe's code.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Sequence
from typing import Any, Final

from ts.protocol import otf_message_handler

from marway.process.allocator import keep_freed_memory
from marway.wire.envelope import KEY, ROWS_CONTENT_TYPE, Row, read_rows

__all__ = ["FieldReader", "install"]

_BUFFER_BYTES: Final = 64 * 1024
_INT: Final = struct.Struct("!i")
_OVER_GRPC: Final = (KEY,)
_OVER_REST: Final = ("body", ROWS_CONTENT_TYPE)
"""How an input begins that is an envelope: with this name, and over REST, where all bodies have one name, this type."""
_LARGE_BYTES: Final = 1024 * 1024
_RETAINED_BYTES: Final = 64 * 1024 * 1024
"""Freed memory that a worker does not give back once it has had a large value: room for that, its input and answer."""


class FieldReader:
    """Reads fields of known length from a connection that nobody else reads, and ahead what has come already."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def take(self, length: int) -> bytearray:
        """Return the next ``length`` bytes; none when it is negative, as TorchServe does it.

        Raises:
            SystemExit: The front end closed the connection.
        """
        start = self._start
        end = start + length
        if end <= self._end:
            self._start = max(start, end)
            return self._buffer[start:end]
        value = bytearray(length)
        with memoryview(value) as view:
            have = self._end - start
            view[:have] = self._view[start : self._end]
            self._start = self._end = 0
            while length - have >= _BUFFER_BYTES:
                have += self._receive(view[have:])
        if have < length:
            self._fill(length - have)
            value[have:] = self._buffer[: length - have]
            self._start = length - have
        return value

    @property
    def ahead(self) -> bool:
        """Whether something has come that was not taken yet."""
        return self._start < self._end

    def take_int(self) -> int:
        """Return the next four bytes as a number."""
        (number,) = _INT.unpack(self.take(_INT.size))
        return int(number)

    def fields_come_next(self, texts: Sequence[str]) -> bool:
        """Return whether the next fields have these texts, and take them; if not, leave them all."""
        expected = b""
        for text in texts:
            data = text.encode()
            # A length says what comes for certain: to look further ahead might wait for ever.
            for part in (_INT.pack(len(data)), data):
                expected += part
                if not self._comes_next(expected):
                    return False
        self._start += len(expected)
        return True

    def _comes_next(self, expected: bytes) -> bool:
        have = self._end - self._start
        if have < len(expected):
            self._buffer[:have] = self._buffer[self._start : self._end]
            self._start, self._end = 0, have
            self._fill(len(expected))
        return self._buffer.startswith(expected, self._start)

    def _fill(self, least: int) -> None:
        """Read on until the buffer, whose first byte is the next, holds so many."""
        while self._end < least:
            self._end += self._receive(self._view[self._end :])

    def _receive(self, where: memoryview) -> int:
        count = self.connection.recv_into(where)
        if count == 0:
            sys.exit(0)  # as TorchServe's own reader does it: the front end has no more work
        return count


_reader: FieldReader | None = None
_retrieve_other = otf_message_handler._retrieve_input_data


def install() -> None:
    """Have TorchServe's protocol code read by `FieldReader`, and envelopes straight into rows."""
    otf_message_handler._retrieve_buffer = _retrieve_buffer
    otf_message_handler._retrieve_input_data = _retrieve_input_data


def _retrieve_buffer(connection: socket.socket, length: int) -> bytearray:
    if length >= _LARGE_BYTES:
        keep_freed_memory(_RETAINED_BYTES)
    return _reader_of(connection).take(length)


def _retrieve_input_data(connection: socket.socket) -> dict[str, Any] | None:
    """Return one input, as TorchServe's function of this name; the value of an envelope as its rows."""
    reader = _reader_of(connection)
    if reader.fields_come_next(_OVER_GRPC):
        content_type = reader.take(reader.take_int()).decode()
    elif reader.fields_come_next(_OVER_REST):
        content_type = ROWS_CONTENT_TYPE
    else:
        return _retrieve_other(connection)  # type: ignore[no-any-return]  # TorchServe has no types
    size = reader.take_int()
    rows: list[Row] = read_rows(lambda length: _retrieve_buffer(connection, length), size)
    return {"name": KEY, "contentType": content_type, "value": rows}


def _reader_of(connection: socket.socket) -> FieldReader:
    global _reader
    if _reader is None or _reader.connection is not connection:  # a worker has one connection at a time
        _reader = FieldReader(connection)
    return _reader
