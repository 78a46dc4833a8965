"""Sessions of aiohttp for one server, or one pod, at the other end."""

from __future__ import annotations

import aiohttp

__all__ = ["client_session"]


def client_session(*, connect_timeout_s: float, idle_s: float) -> aiohttp.ClientSession:
    """Return a session that passes bodies and headers as they are, and sets no limit of its own.

    Args:
        connect_timeout_s: Time to open a connection, in seconds.
        idle_s: How long an idle one is kept, in seconds.
    """
    return aiohttp.ClientSession(
        # How much is asked at once is decided elsewhere; a limit here would be a queue that nobody sees.
        connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=idle_s),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        skip_auto_headers=("accept", "accept-encoding", "content-type", "user-agent"),
    )
