"""Clients that check every answer, in a process of their own (`checked_client`), so that a test may block meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Self

__all__ = ["CheckedClients"]

_CLIENT = Path(__file__).with_name("checked_client.py")
_LAST_ANSWERS_S = 120


class CheckedClients:
    """Asks `probe` for as long as the context is open; afterwards says how many requests came to which end.

    Args:
        gateway: Base URL of the gateway.
        clients: How many clients, each with one request at a time.
        seed: Of what they do.

    Attributes:
        ends: Number of requests by end: `right`, `wrong`, `lost` (no answer, or none by the deadline), `disconnected`
            (the connection to the gateway ended, or was refused), `cancelled` (by the client itself) or `status NNN`.
        bad: The first of the others that were neither right nor cancelled, with what they were told.
        disconnected: When connections ended or were refused, and how; by `time.monotonic`, which a machine's processes
            share.
    """

    def __init__(self, gateway: str, *, clients: int, seed: int) -> None:
        self.ends: dict[str, int] = {}
        self.bad: list[str] = []
        self.disconnected: list[tuple[float, str]] = []
        self._asked = {"gateway": gateway, "clients": clients, "seed": seed}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, str(_CLIENT), json.dumps(self._asked)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        try:
            output, _errors = self._process.communicate(timeout=_LAST_ANSWERS_S)
        finally:
            self._process.kill()
            self._process.wait()
        assert self._process.returncode == 0, "the clients ended with an error"
        document = json.loads(output)
        self.ends, self.bad, self.disconnected = document["ends"], document["bad"], document["disconnected"]
