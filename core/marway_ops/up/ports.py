"""Ports that stay ours between being chosen and being listened on."""

from __future__ import annotations

import socket

from marway.errors import InvalidSettings

__all__ = ["LOOPBACK", "ReservedPort", "reserve"]

LOOPBACK = "127.0.0.1"


class ReservedPort:
    """A port that is bound and not listened on, so that nobody is given it.

    A child that binds it with `SO_REUSEADDR`, as servers do, gets it all the same: the kernel shares an address among
    such sockets until one of them listens. So a child that is started again finds its port free, too.

    Args:
        port: Which one; 0 takes a free one.
        unshared: Refuse a port that somebody holds as we do.

    Raises:
        InvalidSettings: Somebody listens on it.
    """

    def __init__(self, port: int = 0, *, unshared: bool = False) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if unshared:
                with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as strict:
                    strict.bind((LOOPBACK, port))
            self._socket.bind((LOOPBACK, port))
        except (OSError, OverflowError) as exc:
            self._socket.close()
            reason = exc.strerror if isinstance(exc, OSError) else "there is no such port"
            raise InvalidSettings(
                f"port {port} cannot be used: {reason}; choose another with --port, or --port 0 for free ones"
            ) from exc
        self.number: int = self._socket.getsockname()[1]

    def close(self) -> None:
        """Let go of the port."""
        self._socket.close()


def reserve(first: int, count: int) -> list[ReservedPort]:
    """Return ``count`` reserved ports from ``first`` on, or free ones in a row when ``first`` is 0.

    Raises:
        InvalidSettings: One of them is taken.
    """
    for attempt in range(100):
        ports: list[ReservedPort] = []
        try:
            ports.append(ReservedPort(first))
            while len(ports) < count:
                ports.append(ReservedPort(ports[-1].number + 1, unshared=first == 0))
            return ports
        except InvalidSettings:
            for port in ports:
                port.close()
            if first != 0 or attempt == 99:
                raise
    raise AssertionError("unreachable")
