"""What a shim asks of the fork server: a worker with these arguments, environment, directory and streams."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Request", "receive"]

_LENGTH_BYTES = 8
_MAX_BYTES = 16 * 1024 * 1024  # Linux allows a process far less
_MAX_DESCRIPTORS = 8
_STREAMS = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One worker to start.

    Attributes:
        arguments: The script to run and its arguments.
        environment: The worker's whole environment.
        cwd: Its working directory.
        descriptors: Standard input, output and error, then a pidfd of TorchServe where the kernel has them.
    """

    arguments: Sequence[str]
    environment: Mapping[str, str]
    cwd: str
    descriptors: Sequence[int]

    def close(self) -> None:
        """Close the descriptors that came with it."""
        for descriptor in self.descriptors:
            with contextlib.suppress(OSError):
                os.close(descriptor)


def receive(connection: socket.socket) -> Request:
    """Read one request.

    Raises:
        ValueError: It is none.
        OSError: The connection broke or timed out.
    """
    first, descriptors, _, _ = socket.recv_fds(connection, 65536, _MAX_DESCRIPTORS)
    try:
        length = int.from_bytes(first[:_LENGTH_BYTES], "big")
        if len(first) < _LENGTH_BYTES or length > _MAX_BYTES or len(descriptors) < _STREAMS:
            raise ValueError("not a request for a worker")
        body = bytearray(first[_LENGTH_BYTES:])
        while len(body) < length:
            part = connection.recv(length - len(body))
            if not part:
                raise ValueError("the request ends early")
            body += part
        cwd, count, *rest = os.fsdecode(bytes(body)).split("\0")
        arguments, environment = rest[: int(count)], rest[int(count) :]
        pairs = (pair.partition("=") for pair in environment)
        return Request(arguments, {name: value for name, _, value in pairs}, cwd, descriptors)
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
