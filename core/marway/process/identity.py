"""Who does what: the name that records and history show."""

from __future__ import annotations

import getpass
import socket

__all__ = ["me"]


def me() -> str:
    """Return the user of this process as `user@host`."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{socket.gethostname()}"
