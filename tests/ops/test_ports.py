"""Reserved ports are ours, and still to be listened on by a child."""

from __future__ import annotations

import socket

import pytest

from marway.errors import InvalidSettings
from marway_ops.up.home import LOOPBACK, ReservedPort, reserve


def listener(port: int, *, reuse: bool) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if reuse:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((LOOPBACK, port))
        made.listen()
    except OSError:
        made.close()
        raise
    return made


def test_a_server_can_listen_on_a_reserved_port() -> None:
    """A server that sets SO_REUSEADDR listens on the port while we hold it, again and again."""
    reserved = ReservedPort()
    try:
        for _ in range(2):
            with (
                listener(reserved.number, reuse=True) as server,
                socket.create_connection((LOOPBACK, reserved.number), timeout=5),
            ):
                server.accept()[0].close()
    finally:
        reserved.close()


def test_nobody_else_takes_a_reserved_port() -> None:
    """A plain server is refused, and a connection too while nobody listens."""
    reserved = ReservedPort()
    try:
        with pytest.raises(OSError, match="in use"):
            listener(reserved.number, reuse=False)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((LOOPBACK, reserved.number), timeout=5)
    finally:
        reserved.close()


def test_a_taken_port_is_refused() -> None:
    """A port on which somebody listens gives one clear error that says what to do."""
    with listener(0, reuse=True) as server:
        taken = server.getsockname()[1]
        with pytest.raises(InvalidSettings, match=f"port {taken} cannot be used.*--port 0"):
            ReservedPort(taken)


def test_free_ports_come_in_a_row() -> None:
    """From 0, the ports are free ones that follow one another; two sets never share one."""
    first, second = reserve(0, 3), reserve(0, 3)
    try:
        for ports in (first, second):
            numbers = [port.number for port in ports]
            assert numbers == list(range(numbers[0], numbers[0] + 3))
        assert not {port.number for port in first} & {port.number for port in second}
    finally:
        for port in (*first, *second):
            port.close()
